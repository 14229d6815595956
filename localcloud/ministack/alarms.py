"""CloudWatch alarms that watch their own metric only, and that notice when its data ends.

MiniStack's look at all metrics of a name, whatever their dimensions, at all periods as if they were one, and only when
data is put: an alarm that has rung rings for ever once nothing is put any more. Here an alarm looks at its own
dimensions, at each period by itself, and again when it is described.
"""

import time
from collections.abc import Callable
from typing import Any

from ministack.services import cloudwatch

from localcloud.ministack.repairs import Repair

EVALUATION_SECONDS = 60
"""How often an alarm that is described is evaluated without new data: AWS's own interval, in which a state that
SetAlarmState gave holds."""

_EVALUATED: dict[str, float] = {}  # an alarm's ARN to the time of its last evaluation

BREACHES: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanOrEqualToThreshold": lambda value, threshold: value >= threshold,
    "GreaterThanThreshold": lambda value, threshold: value > threshold,
    "LessThanThreshold": lambda value, threshold: value < threshold,
    "LessThanOrEqualToThreshold": lambda value, threshold: value <= threshold,
}


def next_state(breaching: list[bool | None], datapoints_to_alarm: int, missing_data: str) -> str | None:
    """The state of an alarm whose periods breached its threshold or had no data (None); None to keep the one it has.

    missing_data: TreatMissingData. The rules are those of
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
    """
    filled = {"breaching": True, "notBreaching": False}.get(missing_data)
    seen = [filled if one is None else one for one in breaching]
    known = [one for one in seen if one is not None]
    if sum(known) >= datapoints_to_alarm:
        return "ALARM"
    if missing_data == "ignore" and not (known and not all(known)):
        return None
    if not known:
        return "INSUFFICIENT_DATA"
    return "ALARM" if len(known) < len(seen) and all(known) else "OK"


def _evaluate_alarm(original: Callable[[dict], None]) -> Callable[[dict], None]:
    def evaluate(alarm: dict[str, Any]) -> None:
        breaches = BREACHES.get(alarm.get("ComparisonOperator", ""))
        if not alarm.get("MetricName") or breaches is None:
            original(alarm)  # anomaly detection, which it does in its own way
            return
        threshold, statistic = alarm["Threshold"], alarm.get("ExtendedStatistic") or alarm["Statistic"]
        values = [_statistic(points, statistic) for points in _periods(alarm)]
        breaching = [None if value is None else breaches(value, threshold) for value in values]
        needed = alarm.get("DatapointsToAlarm") or alarm["EvaluationPeriods"]
        state, before = next_state(breaching, needed, alarm["TreatMissingData"]), alarm["StateValue"]
        _EVALUATED[alarm["AlarmArn"]] = time.time()
        if state is None or state == before:
            return
        reason = f"{statistic} of the last periods, newest first: {values}; threshold {threshold}, {needed} needed"
        alarm.update(StateValue=state, StateReason=reason, StateUpdatedTimestamp=int(time.time()))
        cloudwatch._record_history(alarm["AlarmName"], before, state, reason)
        cloudwatch._dispatch_alarm_actions(alarm, before, state, reason)
        cloudwatch._evaluate_parent_alarms(alarm)

    return evaluate


def _describe_alarms(original: Callable[..., Any]) -> Callable[..., Any]:
    def describe(*request: Any, **options: Any) -> Any:
        old = time.time() - EVALUATION_SECONDS
        for alarm in cloudwatch._alarms.values():
            if max(alarm["StateUpdatedTimestamp"], _EVALUATED.get(alarm["AlarmArn"], 0.0)) <= old:
                cloudwatch._evaluate_alarm(alarm)
        return original(*request, **options)

    return describe


def _periods(alarm: dict[str, Any]) -> list[list[dict]]:
    """The points of the alarm's metric in each of its periods, the newest first. Periods end now, not at the minute."""
    dimensions = cloudwatch._dims_key(cloudwatch._dims_from_list(alarm["Dimensions"]))
    points = cloudwatch._metrics.get((alarm["Namespace"], alarm["MetricName"], dimensions)) or []
    now, period = time.time(), alarm["Period"]
    bounds = [(now - period * (number + 1), now - period * number) for number in range(alarm["EvaluationPeriods"])]
    return [
        [point for point in points if start < point["Timestamp"] <= (end if number else now + period)]
        for number, (start, end) in enumerate(bounds)
    ]


def _statistic(points: list[dict], statistic: str) -> float | None:
    return cloudwatch._stat_value(cloudwatch._calc_stats(points), statistic, points) if points else None


REPAIRS = [
    Repair(
        "an alarm looks at every dimension of its metric, and at all periods as one",
        cloudwatch.__name__,
        "_evaluate_alarm",
        "a0b0acd3d432",
        _evaluate_alarm,
    ),
    Repair(
        "an alarm is not evaluated when its data ends",
        cloudwatch.__name__,
        "_describe_alarms",
        "ab8f092ff9ae",
        _describe_alarms,
    ),
]
