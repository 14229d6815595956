"""Rules that look at how many units of a layer still answer.

What is saved of a layer is one vector: of each unit (a channel, or a feature), the share of the batch's values at which
it was active: above 0 for a ReLU, and for tanh and sigmoid an input within AWS's default thresholds, -9.4999 to 9.4999
and -23 to 16.99999. So these thresholds are no parameters of SaturatedActivation.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from findings import Finding
from saved import ACTIVITY, SavedStep

from rules.rule import ReviewRule


class _Activity(ReviewRule):
    """More than threshold_layer percent of a layer's units are active less than threshold_inactivity percent.

    At the last two saved steps on end, so that one odd batch is no issue.
    """

    layers: ClassVar[str]
    healthy: ClassVar[str]
    advice: ClassVar[str]

    def __init__(self, trial: Any, threshold_inactivity: float = 1.0, threshold_layer: float = 50.0):
        super().__init__(trial, threshold_inactivity=threshold_inactivity, threshold_layer=threshold_layer)
        self._threshold_inactivity, self._threshold_layer = threshold_inactivity, threshold_layer
        self._inactive: dict[str, list[tuple[int, float]]] = {}

    def look(self, saved: SavedStep) -> None:
        for name, activity in saved.values.get(ACTIVITY, {}).items():
            if re.fullmatch(self.layers, name):
                inactive = 100 * float((activity * 100 < self._threshold_inactivity).mean())
                self._inactive.setdefault(name, []).append((saved.step, inactive))
                del self._inactive[name][:-2]
                if len(self._inactive[name]) == 2:
                    self.seen = True

    def verdict(self) -> Finding:
        worst = [
            (min(share for _, share in latest), latest[-1][0], name)
            for name, latest in self._inactive.items()
            if len(latest) == 2
        ]
        if max(worst)[0] <= self._threshold_layer:
            return self.nothing(self.healthy)
        share, step, name = max(worst)
        layer = name.rpartition("_activity")[0]
        bad = sum(one > self._threshold_layer for one, _, _ in worst)
        message = f"{share:.0f} % of the units of {layer} {self.advice} ({bad} of {len(worst)} layers)"
        return self.issue(message, step, name, inactive_percent=share)


class DeadRelu(_Activity):
    __doc__ = _Activity.__doc__

    layers = r".*ReLU6?_\d+_activity"
    needs = "layer of ReLUs twice"
    healthy = "Every layer of ReLUs answers."
    advice = (
        "are zero for nearly every image: they learn nothing any more. Lower the learning rate, or use another "
        "initialisation or LeakyReLU"
    )


class SaturatedActivation(_Activity):
    __doc__ = _Activity.__doc__

    layers = r".*(Tanh|Sigmoid)_\d+_activity"
    needs = "layer of tanh or sigmoid twice"
    healthy = "No layer of tanh or sigmoid is saturated."
    advice = (
        "are at the end of their range for nearly every image: no gradient passes. Lower the learning rate, initialise "
        "smaller, or normalise before them"
    )
