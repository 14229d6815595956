"""The record of a tuning job: what its trials' own records say of it, its statuses and its event."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from localcloud.sagemaker.training_records import ENDED
from localcloud.sagemaker.tuning_requests import CONFIG, DEFINITION

KIND = "hyper-parameter-tuning-job"
LEAST_IMPROVEMENT = 0.01
"""A trial improves the objective if it is better than the best before by this share of it: AWS's 1 %."""


def summary(record: Mapping[str, Any], job: Mapping[str, Any], trial: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's HyperParameterTrainingJobSummary. job: its training job; trial: what the tuning job's record has."""
    objective = record[CONFIG]["HyperParameterTuningJobObjective"]
    value = final_objective(job, objective["MetricName"])
    members = (
        "TrainingJobName",
        "TrainingJobArn",
        "CreationTime",
        "TrainingStartTime",
        "TrainingEndTime",
        "TrainingJobStatus",
        "FailureReason",
    )
    known = {member: job[member] for member in members if member in job} | {
        "TrainingJobDefinitionName": record[DEFINITION].get("DefinitionName"),
        "TuningJobName": record["HyperParameterTuningJobName"],
        "TunedHyperParameters": trial["TunedHyperParameters"],
        "HyperParameters": job["HyperParameters"],
        "Finished": job["TrainingJobStatus"] == "Completed" or trial.get("Finished", False),
    }
    if job["TrainingJobStatus"] not in ENDED:
        return known | {"ObjectiveStatus": "Pending"}
    if value is None:
        return known | {"ObjectiveStatus": "Failed"}
    return known | {
        "ObjectiveStatus": "Succeeded",
        "FinalObjectiveMetricValue": value,
        "FinalHyperParameterTuningJobObjectiveMetric": {**objective, "Value": value},
    }


def best(record: Mapping[str, Any], trials: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The finished trial with the best objective; the earlier of equals."""
    measured = [trial for trial in trials if trial["Finished"] and "FinalObjectiveMetricValue" in trial]
    maximize = record[CONFIG]["HyperParameterTuningJobObjective"]["Type"] == "Maximize"
    choose = max if maximize else min
    return choose(measured, key=lambda trial: trial["FinalObjectiveMetricValue"], default=None)


def completed_by_criteria(record: Mapping[str, Any], trials: list[dict[str, Any]]) -> bool:
    """Whether TuningJobCompletionCriteria are met: the target by a finished trial, or as many trials without one that
    improves on those before.

    https://docs.aws.amazon.com/sagemaker/latest/dg/automatic-model-tuning-progress.html
    """
    criteria = record[CONFIG].get("TuningJobCompletionCriteria", {})
    target, leader = criteria.get("TargetObjectiveMetricValue"), best(record, trials)
    if target is not None and leader is not None:
        value = leader["FinalObjectiveMetricValue"]
        maximize = record[CONFIG]["HyperParameterTuningJobObjective"]["Type"] == "Maximize"
        if value >= target if maximize else value <= target:
            return True
    patience = criteria.get("BestObjectiveNotImproving", {}).get("MaxNumberOfTrainingJobsNotImproving")
    return patience is not None and not_improving(record[CONFIG], trials) >= patience


def not_improving(config: Mapping[str, Any], trials: list[dict[str, Any]]) -> int:
    """How many trials have ended, with an objective, since the last that improved the best one by 1 % or more."""
    sign = 1 if config["HyperParameterTuningJobObjective"]["Type"] == "Maximize" else -1
    measured = [trial for trial in trials if "FinalObjectiveMetricValue" in trial]
    leader, count = -math.inf, 0
    for trial in sorted(measured, key=lambda trial: trial["TrainingEndTime"]):
        value = sign * trial["FinalObjectiveMetricValue"]
        improves = leader == -math.inf or value - leader >= LEAST_IMPROVEMENT * abs(leader) > 0 or value > leader == 0
        leader, count = max(leader, value), 0 if improves else count + 1
    return count


def final_objective(job: Mapping[str, Any], metric_name: str) -> float | None:
    """The last value of the metric; None for a job that failed, whatever it printed before."""
    if job["TrainingJobStatus"] == "Failed":
        return None
    metrics = {metric["MetricName"]: metric["Value"] for metric in job.get("FinalMetricDataList", [])}
    return metrics.get(metric_name)


def state_change_detail(record: Mapping[str, Any], tags: list[dict[str, str]]) -> dict[str, Any]:
    """The event's detail; times are milliseconds since 1970, tags a map.

    https://docs.aws.amazon.com/sagemaker/latest/dg/automating-sagemaker-with-eventbridge.html"""
    members = (
        "HyperParameterTuningJobName",
        "HyperParameterTuningJobArn",
        CONFIG,
        DEFINITION,
        "HyperParameterTuningJobStatus",
        "TrainingJobStatusCounters",
        "ObjectiveStatusCounters",
        "FailureReason",
    )
    times = {
        member: int(record[member].timestamp() * 1000)
        for member in ("CreationTime", "HyperParameterTuningEndTime", "LastModifiedTime")
        if member in record
    }
    detail = {member: record[member] for member in members if member in record}
    return {**detail, **times, "Tags": {tag["Key"]: tag["Value"] for tag in tags}}


def enter(record: dict[str, Any], status: str, reason: str | None) -> None:
    now = datetime.now(UTC)
    record.update(HyperParameterTuningJobStatus=status, LastModifiedTime=now)
    if status in ENDED:
        record["HyperParameterTuningEndTime"] = now
        seconds = int((now - record["CreationTime"]).total_seconds())
        record["ConsumedResources"] = {"RuntimeInSeconds": seconds}
    if reason is not None:
        record["FailureReason"] = reason


def counters(trials: list[dict[str, Any]]) -> dict[str, Any]:
    statuses = Counter(trial["TrainingJobStatus"] for trial in trials)
    objectives = Counter(trial["ObjectiveStatus"] for trial in trials)
    return {
        "TrainingJobStatusCounters": {
            "Completed": statuses["Completed"],
            "InProgress": statuses["InProgress"] + statuses["Stopping"],
            "RetryableError": 0,
            "NonRetryableError": statuses["Failed"],
            "Stopped": statuses["Stopped"],
        },
        "ObjectiveStatusCounters": {
            "Succeeded": objectives["Succeeded"],
            "Pending": objectives["Pending"],
            "Failed": objectives["Failed"],
        },
    }
