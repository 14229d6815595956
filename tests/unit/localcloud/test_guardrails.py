"""Plans of deployments and the routes of their traffic, with plain values."""

from collections import Counter
from typing import Any

import pytest

from localcloud.sagemaker.errors import ServiceError
from localcloud.sagemaker.guardrails import Route, alarm_that_rings, plan_of


def config(kind: str, wait: int = 60, **members: Any) -> dict[str, Any]:
    routing = {"Type": kind, "WaitIntervalInSeconds": wait}
    sizes = {name: members.pop(name) for name in ("CanarySize", "LinearStepSize") if name in members}
    return {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": {**routing, **sizes}, **members}}


def percent(value: int) -> dict[str, Any]:
    return {"Type": "CAPACITY_PERCENT", "Value": value}


def instances(value: int) -> dict[str, Any]:
    return {"Type": "INSTANCE_COUNT", "Value": value}


@pytest.mark.parametrize(
    ("deployment", "instance_count", "shares"),
    [
        (None, 1, [1.0]),
        (config("ALL_AT_ONCE"), 1, [1.0]),
        (config("CANARY", CanarySize=percent(30)), 1, [0.3, 1.0]),
        (config("CANARY", CanarySize=instances(1)), 4, [0.25, 1.0]),
        (config("LINEAR", LinearStepSize=percent(25)), 1, [0.25, 0.5, 0.75, 1.0]),
        (config("LINEAR", LinearStepSize=instances(1)), 3, [1 / 3, 2 / 3, 1.0]),
        (config("LINEAR", LinearStepSize=percent(40)), 1, [0.4, 0.8, 1.0]),
    ],
)
def test_traffic_moves_in_steps_of_capacity(deployment, instance_count, shares):
    assert plan_of(deployment, instance_count).shares == pytest.approx(shares)


@pytest.mark.parametrize(
    ("deployment", "message"),
    [
        (config("CANARY"), "CanarySize is required with Type CANARY"),
        (config("CANARY", CanarySize=percent(51)), "at most 50 percent"),
        (config("CANARY", CanarySize=instances(1)), r"1 \(INSTANCE_COUNT\) of 1 instances"),
        (config("LINEAR", LinearStepSize=percent(9)), "10 to 50 percent"),
        (
            config("ALL_AT_ONCE", 400, TerminationWaitInSeconds=200, MaximumExecutionTimeoutInSeconds=600),
            "MaximumExecutionTimeoutInSeconds 600 must be larger than the total waiting time of the deployment, 600",
        ),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(deployment, message):
    with pytest.raises(ServiceError, match=message):
        plan_of(deployment, 1)


@pytest.mark.parametrize(("share", "expected"), [(0.25, 10), (0.5, 20), (0.1, 4), (1 / 3, 13), (0.0, 0), (1.0, 40)])
def test_a_share_of_the_traffic_is_that_share_of_any_few_requests(share, expected):
    old, new = object(), object()
    route = Route(old)  # type: ignore[arg-type]
    route.give(new, share)  # type: ignore[arg-type]
    asked = Counter("new" if route.next() is new else "old" for _ in range(40))
    assert asked["new"] == expected


@pytest.mark.parametrize(
    ("states", "reason"),
    [
        ({"a": "OK", "b": "INSUFFICIENT_DATA"}, None),
        ({"a": "OK", "b": "ALARM"}, "the alarm b is ALARM"),
        ({"a": "OK"}, "the alarm b is missing"),
    ],
)
def test_an_alarm_rings_when_it_is_in_alarm_or_gone(states, reason):
    class CloudWatch:
        def describe_alarms(self, AlarmNames: list[str], **_: Any) -> dict[str, Any]:  # noqa: N803 - boto3's name
            known = [name for name in AlarmNames if name in states]
            return {"MetricAlarms": [{"AlarmName": name, "StateValue": states[name]} for name in known]}

    assert alarm_that_rings(CloudWatch(), ("a", "b")) == reason
