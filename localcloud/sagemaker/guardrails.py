"""Deployment guardrails: how an update moves traffic from the old fleet to the new one, and what calls it off.

https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from localcloud.sagemaker.errors import ServiceError, validation_error
from localcloud.sagemaker.variants import Variants

LONGEST_EXECUTION_SECONDS = 28_800  # AWS's bound of MaximumExecutionTimeoutInSeconds


@dataclass(frozen=True)
class Plan:
    shares: tuple[float, ...]
    """The new fleet's share of the traffic after each step; the last is 1."""
    wait_seconds: float
    """How long each step bakes: alarms and health are watched meanwhile."""
    termination_wait_seconds: float
    timeout_seconds: float
    """How long all of it may take, from the request on."""
    alarms: tuple[str, ...]


def plan_of(config: Mapping[str, Any] | None, instance_count: int) -> Plan:
    """The plan of a DeploymentConfig for a new fleet of so many instances; without one, all traffic moves at once.

    Raises ServiceError for what contradicts itself."""
    config = config or {}
    policy = config.get("BlueGreenUpdatePolicy", {})
    routing = policy.get("TrafficRoutingConfiguration", {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0})
    shares = _shares(routing, instance_count)
    wait, termination_wait = routing["WaitIntervalInSeconds"], policy.get("TerminationWaitInSeconds", 0)
    timeout = policy.get("MaximumExecutionTimeoutInSeconds", LONGEST_EXECUTION_SECONDS)
    waiting = wait * len(shares) + termination_wait
    if timeout <= waiting:
        raise validation_error(
            f"MaximumExecutionTimeoutInSeconds {timeout} must be larger than the total waiting time of the deployment, "
            f"{waiting} seconds."
        )
    alarms = config.get("AutoRollbackConfiguration", {}).get("Alarms", [])
    if not all("AlarmName" in alarm for alarm in alarms):
        raise validation_error("Each of AutoRollbackConfiguration.Alarms needs an AlarmName")
    return Plan(shares, wait, termination_wait, timeout, tuple(alarm["AlarmName"] for alarm in alarms))


class Route:
    """The variants that answer an endpoint's requests and, while traffic moves, those that get a share of them."""

    def __init__(self, variants: Variants):
        self.variants = variants
        self._new: Variants | None = None
        self._share = 0.0
        self._owed = 0.0

    def give(self, variants: Variants, share: float) -> None:
        """Send a share of the requests to new variants. With 1 they take the others' place, with 0 they get none."""
        if share >= 1:
            self.variants, self._new = variants, None
        else:
            self._new, self._share = (variants, share) if share > 0 else (None, 0.0)

    def next(self) -> Variants:
        """The variants for the next request; the shares hold for any few of them."""
        if self._new is None:
            return self.variants
        self._owed += self._share
        if self._owed < 1 - 1e-9:
            return self.variants
        self._owed -= 1
        return self._new


def missing_alarms(cloudwatch: Any, names: tuple[str, ...]) -> list[str]:
    """The alarms that do not exist. Raises botocore's errors."""
    return sorted(set(names) - _states(cloudwatch, names).keys())


def alarm_that_rings(cloudwatch: Any, names: tuple[str, ...]) -> str | None:
    """Why these alarms call a deployment off, None if they do not. What cannot be read is no reassurance."""
    if not names:
        return None
    try:
        states = _states(cloudwatch, names)
    except (BotoCoreError, ClientError, ServiceError) as error:
        return f"the alarms cannot be read: {error}"
    ringing = [name for name in names if states.get(name, "missing") in ("ALARM", "missing")]
    return f"the alarm {ringing[0]} is {states.get(ringing[0], 'missing')}" if ringing else None


def _states(cloudwatch: Any, names: tuple[str, ...]) -> dict[str, str]:
    found = cloudwatch.describe_alarms(AlarmNames=list(names), AlarmTypes=["MetricAlarm", "CompositeAlarm"])
    alarms = [*found.get("MetricAlarms", []), *found.get("CompositeAlarms", [])]
    return {alarm["AlarmName"]: alarm["StateValue"] for alarm in alarms}


def _shares(routing: Mapping[str, Any], instance_count: int) -> tuple[float, ...]:
    kind = routing["Type"]
    if kind == "CANARY":
        return (_share(routing, "CanarySize", instance_count, least=0.0), 1.0)
    if kind == "LINEAR":
        size = _share(routing, "LinearStepSize", instance_count, least=0.1)
        steps = [size * number for number in range(1, 11)]
        return (*(share for share in steps if share < 1 - 1e-9), 1.0)
    return (1.0,)


def _share(routing: Mapping[str, Any], member: str, instance_count: int, least: float) -> float:
    size = routing.get(member)
    if size is None:
        raise validation_error(f"TrafficRoutingConfiguration.{member} is required with Type {routing['Type']}.")
    share = size["Value"] / (100 if size["Type"] == "CAPACITY_PERCENT" else instance_count)
    if not least <= share <= 0.5:
        raise validation_error(
            f"TrafficRoutingConfiguration.{member} is {size['Value']} ({size['Type']}) of {instance_count} instances: "
            f"it must be {'10 to' if least else 'at most'} 50 percent of the variant's capacity."
        )
    return share
