"""The record of a training job: the statuses that it goes through, and the event that tells of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

KIND = "training-job"
ENDED = ("Completed", "Failed", "Stopped")
LONGEST_REASON = 1024
WAITED_TOO_LONG = "MaxWaitTimeExceeded"


class JobEnded(Exception):
    """The job has ended: its record does not change any more."""


MESSAGES = {
    "Starting": "Launching requested ML instances",
    "Interrupted": "The instances of managed spot training were interrupted",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Uploading": "Uploading generated training model",
    "Stopping": "Stopping the training job",
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopped": "Training job stopped",
    WAITED_TOO_LONG: "Training job wait time exceeded MaxWaitTimeInSeconds provided",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
}


def enter(job: dict[str, Any], status: str, secondary: str, reason: str | None = None) -> None:
    """Move a job's record to a status: transitions, times, reason. Raises JobEnded if it is in its last one already."""
    if job["TrainingJobStatus"] in ENDED:
        raise JobEnded
    now = datetime.now(UTC)
    transitions = job["SecondaryStatusTransitions"]
    transitions[-1].setdefault("EndTime", now)
    transition = {"Status": secondary, "StartTime": now, "StatusMessage": MESSAGES[secondary]}
    transitions.append(transition)
    job.update(TrainingJobStatus=status, SecondaryStatus=secondary, LastModifiedTime=now)
    if secondary == "Downloading":
        job.setdefault("TrainingStartTime", now)
    if status in ENDED:
        transition["EndTime"] = now
        job["TrainingEndTime"] = now
        if "TrainingStartTime" in job:
            seconds = max(1, math.ceil((now - job["TrainingStartTime"]).total_seconds()))
            job.update(TrainingTimeInSeconds=seconds, BillableTimeInSeconds=seconds)
    if reason is not None:
        job["FailureReason"] = reason
        transition["StatusMessage"] = reason


def state_change_detail(record: Mapping[str, Any], tags: list[dict[str, str]]) -> dict[str, Any]:
    """Return the event's detail; times are milliseconds since 1970, tags a map.

    https://docs.aws.amazon.com/sagemaker/latest/dg/automating-sagemaker-with-eventbridge.html"""
    members = (
        "TrainingJobName",
        "TrainingJobArn",
        "TrainingJobStatus",
        "SecondaryStatus",
        "FailureReason",
        "HyperParameters",
        "AlgorithmSpecification",
        "RoleArn",
        "InputDataConfig",
        "OutputDataConfig",
        "ResourceConfig",
        "VpcConfig",
        "StoppingCondition",
        "CreationTime",
        "TrainingStartTime",
        "TrainingEndTime",
        "LastModifiedTime",
        "SecondaryStatusTransitions",
        "ModelArtifacts",
        "FinalMetricDataList",
        "TrainingTimeInSeconds",
        "BillableTimeInSeconds",
    )
    detail = {member: record[member] for member in members if member in record}
    return _milliseconds({**detail, "Tags": {tag["Key"]: tag["Value"] for tag in tags}})


def shortened(text: str, ending: str) -> str:
    """Return text and ending in at most as many characters as a FailureReason has."""
    return text[: LONGEST_REASON - len(ending)] + ending


def _milliseconds(value: Any) -> Any:
    if isinstance(value, datetime):
        return int(value.timestamp() * 1000)
    if isinstance(value, dict):
        return {key: _milliseconds(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_milliseconds(item) for item in value]
    return value
