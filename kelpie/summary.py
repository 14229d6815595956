"""What a run came to: the one document of `kelpie run --json`, and the same for a reader."""

from __future__ import annotations

import dataclasses
import datetime
import json
from typing import Any

from rich.console import Console
from rich.table import Table

from kelpie import documents, execution, log_streams
from kelpie.execution import Trial
from kelpie.log_streams import TRAINING_JOBS_LOG_GROUP
from kelpie.progress import trained_again
from kelpie.stack import Stack
from kelpie.watch import short_number

LAST_LINES = 15


def summarise(stack: Stack, described: dict[str, Any]) -> dict[str, Any]:
    """Return the document of an execution that DescribeExecution described. What never came about is null or empty."""
    arn = described["executionArn"]
    run = execution.run_id(arn)
    s3 = stack.client("s3")
    plan = documents.read(s3, f"s3://{stack.bucket}/runs/{run}/plan.json", "plan")
    evaluation = documents.read(s3, plan["locations"]["evaluation"], "evaluation") if plan else None
    trials = execution.trials(stack, run) if plan else []
    training = _training_job(stack, plan) if plan else None
    succeeded = described["status"] == "SUCCEEDED"
    ended = described.get("stopDate") or datetime.datetime.now(datetime.UTC)
    visits = execution.state_visits(execution.history(stack, arn))
    return {
        "execution_arn": arn,
        "execution_name": described["name"],
        "run_id": run,
        "status": described["status"],
        "error": described.get("error"),
        "cause": described.get("cause"),
        "failed_job": None if succeeded else _failed_job(stack, run),
        "test_accuracy": evaluation["accuracy"] if evaluation else None,
        "test_images": evaluation["images"] if evaluation else None,
        "macro_f1": evaluation["macro_f1"] if evaluation else None,
        "endpoint": plan["names"]["endpoint"] if plan and succeeded else None,
        "hyperparameters": _chosen(training, trials),
        "trained_again": list(trained_again(stack, run).values()),
        "trials": [dataclasses.asdict(trial) for trial in trials],
        "states": execution.seconds_by_state(visits, ended),
        "seconds": round((ended - described["startDate"]).total_seconds(), 1),
        "artifacts": _artifacts(plan, training) if plan else {},
    }


def show(summary: dict[str, Any], console: Console) -> None:
    """Print a summary for a reader."""
    if summary["trials"]:
        console.print(_trials_table(summary))
    if summary["hyperparameters"]:
        chosen = "  ".join(f"{name}={short_number(value)}" for name, value in summary["hyperparameters"].items())
        _print(console, f"Chosen         {chosen}")
    for reason in summary["trained_again"]:
        _print(console, f"Trained again  {reason}")
    if summary["test_accuracy"] is not None:
        images = summary["test_images"]
        _print(
            console,
            f"Test accuracy  {summary['test_accuracy']:.4f} on {images} images, macro F1 {summary['macro_f1']:.4f}",
        )
    if summary["endpoint"]:
        _print(console, f"Endpoint       {summary['endpoint']}: in service")
    for name, uri in summary["artifacts"].items():
        _print(console, f"{name.capitalize():<15}{uri}")
    console.print(_states_table(summary))
    _print(console, f"Execution      {summary['execution_name']}: {summary['status']} after {summary['seconds']:.1f} s")


def show_failure(summary: dict[str, Any], console: Console) -> None:
    """Print the last log lines of the job that failed, if any did."""
    job = summary["failed_job"]
    if job and job["last_lines"]:
        _print(console, f"The last lines of {job['name']}:")
        for line in job["last_lines"]:
            _print(console, f"  {line}")


def failure(summary: dict[str, Any]) -> str:
    """Return the error and its cause, in one line."""
    error = summary["error"] or summary["status"]
    cause = " ".join(reason(summary["cause"]).split())
    return f"the run {summary['execution_name']} ended {summary['status']}: {error}: {cause}"


def reason(cause: str | None) -> str:
    """Return what a cause says: a function's is a JSON object that holds the message among other things."""
    if not cause:
        return "no cause was given"
    try:
        document = json.loads(cause)
    except ValueError:
        return cause
    return str(document["errorMessage"]) if isinstance(document, dict) and document.get("errorMessage") else cause


def _training_job(stack: Stack, plan: dict[str, Any]) -> dict[str, Any] | None:
    sagemaker = stack.client("sagemaker")
    found = sagemaker.list_training_jobs(
        NameContains=f"{plan['run_id']}-train-", SortBy="CreationTime", SortOrder="Descending"
    )
    names = [job["TrainingJobName"] for job in found["TrainingJobSummaries"]]
    return sagemaker.describe_training_job(TrainingJobName=names[0]) if names else None


def _failed_job(stack: Stack, run: str) -> dict[str, Any] | None:
    names = [name for name, status in execution.jobs(stack, run).items() if status == "Failed"]
    if not names:
        return None
    lines = log_streams.newest(stack, TRAINING_JOBS_LOG_GROUP, f"{names[0]}/", LAST_LINES)
    return {"name": names[0], "last_lines": [line.message for line in lines]}


def _chosen(training: dict[str, Any] | None, trials: list[Trial]) -> dict[str, str]:
    """Of the final training's hyperparameters those that the trials searched, and the scale of its learning rate if
    the debugger asked for one."""
    searched = sorted({name for trial in trials for name in trial.hyperparameters})
    values = training["HyperParameters"] if training else {}
    scaled = ["learning_rate_scale"] if float(values.get("learning_rate_scale", 1)) != 1 else []
    return {name: values[name] for name in [*searched, *scaled] if name in values}


def _artifacts(plan: dict[str, Any], training: dict[str, Any] | None) -> dict[str, str]:
    found = {"dataset": plan["dataset"]["uri"], "run": f"s3://{plan['bucket']}/{plan['prefix']}/"}
    if training and training.get("ModelArtifacts"):
        found["model"] = training["ModelArtifacts"]["S3ModelArtifacts"]
    return found | {"report": plan["locations"]["report"]}


def _trials_table(summary: dict[str, Any]) -> Table:
    names = sorted({name for trial in summary["trials"] for name in trial["hyperparameters"]})
    table = Table("Trial", "Objective", *names, "Seconds", "Status", box=None, pad_edge=False)
    for number, trial in enumerate(summary["trials"], start=1):
        objective = f"{trial['objective']:.4f}" if trial["objective"] is not None else "-"
        seconds = f"{trial['seconds']:.1f}" if trial["seconds"] is not None else "-"
        values = [short_number(trial["hyperparameters"].get(name, "-")) for name in names]
        table.add_row(str(number), objective, *values, seconds, trial["status"])
    return table


def _states_table(summary: dict[str, Any]) -> Table:
    table = Table("State", "Seconds", box=None, pad_edge=False)
    for state in summary["states"]:
        table.add_row(state["name"], f"{state['seconds']:.1f}")
    return table


def _print(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True)
