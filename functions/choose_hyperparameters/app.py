"""ChooseHyperparameters: the best finished trial's values for the final training, and the leaderboard of all trials.

Event: {"plan_uri": ...}. Answer: {"job": the best trial, "objective": its value, "hyperparameters": its tuned values}.
"""

import math
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import documents
from invocation import client, log


class NoTrialFinished(Exception):
    """No trial of the tuning job completed with an objective, so that there is nothing to choose."""


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    s3 = client("s3")
    plan = documents.read(s3, event["plan_uri"], "plan")
    log(plan["execution_arn"], context).info("choosing", extra={"tuning_job": plan["names"]["tune"]})
    leaderboard = rank(plan["names"]["tune"], trials_of(client("sagemaker"), plan["names"]["tune"]))
    documents.write(s3, plan["locations"]["leaderboard"], "leaderboard", leaderboard)
    return best(leaderboard)


def rank(tuning_job: str, summaries: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the leaderboard: finished trials by falling objective, equal ones by name, then the others.

    summaries: HyperParameterTrainingJobSummary of SageMaker's API.
    """
    trials = [_trial(summary) for summary in summaries]
    trials.sort(key=lambda trial: (trial["objective"] is None, -(trial["objective"] or 0), trial["job"]))
    for position, trial in enumerate(trials, start=1):
        trial["rank"] = position if trial["objective"] is not None else None
    chosen = trials[0]["job"] if trials and trials[0]["rank"] else None
    return {"version": 1, "tuning_job": tuning_job, "chosen": chosen, "trials": trials}


def best(leaderboard: dict[str, Any]) -> dict[str, Any]:
    """Return the first trial's values. Raises NoTrialFinished with the trials' own reasons."""
    if leaderboard["chosen"] is None:
        raise NoTrialFinished(_why_none(leaderboard))
    first = leaderboard["trials"][0]
    return {"job": first["job"], "objective": first["objective"], "hyperparameters": first["hyperparameters"]}


def trials_of(sagemaker: Any, tuning_job: str) -> list[dict[str, Any]]:
    pages = sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job").paginate(
        HyperParameterTuningJobName=tuning_job
    )
    return [summary for page in pages for summary in page["TrainingJobSummaries"]]


def _trial(summary: dict[str, Any]) -> dict[str, Any]:
    objective = summary.get("FinalHyperParameterTuningJobObjectiveMetric", {}).get("Value", math.nan)
    finished = summary["TrainingJobStatus"] == "Completed" and math.isfinite(objective)
    return {
        "rank": None,
        "job": summary["TrainingJobName"],
        "status": summary["TrainingJobStatus"],
        "objective": objective if finished else None,
        "hyperparameters": summary["TunedHyperParameters"],
        "seconds": _seconds(summary.get("TrainingStartTime"), summary.get("TrainingEndTime")),
        "failure_reason": summary.get("FailureReason"),
    }


def _seconds(start: datetime | None, end: datetime | None) -> float | None:
    return round((end - start).total_seconds(), 3) if start and end else None


def _why_none(leaderboard: dict[str, Any]) -> str:
    trials = leaderboard["trials"]
    if not trials:
        return f"the tuning job {leaderboard['tuning_job']} started no trial"
    reasons = Counter(
        trial["failure_reason"] or f"ended {trial['status']} without the metric valid:accuracy" for trial in trials
    )
    said = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(3))
    return f"none of the {len(trials)} trials of {leaderboard['tuning_job']} finished: {said}"
