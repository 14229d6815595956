"""Target tracking: how many instances a load asks for.

Growing is decided on three minutes in a row and shrinking on fifteen, as by the alarms that AWS makes for a policy:
https://docs.aws.amazon.com/autoscaling/application/userguide/target-tracking-scaling-policy-overview.html
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

GROWING_MINUTES, SHRINKING_MINUTES = 3, 15
SHRINKING_BELOW = 0.9
"""Of the target value."""
DEFAULT_COOLDOWN_SECONDS = 300  # AWS's, for production variants


@dataclass(frozen=True)
class Rule:
    least: int
    most: int
    target_value: float
    may_grow: bool
    may_shrink: bool
    """Whether cooldowns, and the policy itself, allow it now."""


def wanted_instances(instances: int, minutes: Sequence[float], rule: Rule) -> int:
    """Return the number of instances that there should be. minutes: requests an instance in each, the newest last."""
    if not rule.least <= instances <= rule.most:
        return min(max(instances, rule.least), rule.most)
    if rule.may_grow and min(minutes[-GROWING_MINUTES:]) > rule.target_value:
        return min(rule.most, math.ceil(instances * minutes[-1] / rule.target_value))
    busiest = max(minutes[-SHRINKING_MINUTES:])
    if rule.may_shrink and busiest < SHRINKING_BELOW * rule.target_value:
        return max(rule.least, math.ceil(instances * busiest / rule.target_value))
    return instances
