"""One execution of the state machine: started, watched and read, through AWS's APIs alone."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from kelpie.errors import InvalidInput
from kelpie.stack import Stack

MOST_EVENTS, NEW_EVENTS = 1000, 50
"""A request of GetExecutionHistory: the most that it takes, and enough for what happens between two looks."""
EPOCH = re.compile(r"^epoch (?P<epoch>\d+)/(?P<epochs>\d+) (?P<values>.*)$")


@dataclass(frozen=True)
class StateVisit:
    """One stay in a state. `left` is None while it lasts, and for a state in which the execution ended."""

    name: str
    entered: datetime.datetime
    left: datetime.datetime | None
    failed: bool = False
    """What it did failed in the end, and a Catch took over."""


@dataclass(frozen=True)
class Trial:
    name: str
    status: str
    objective: float | None
    hyperparameters: dict[str, str]
    seconds: float | None
    """None until it has ended."""

    @property
    def ended(self) -> bool:
        return self.status in ("Completed", "Failed", "Stopped")


def start(stack: Stack, execution_input: dict[str, Any]) -> str:
    """Start an execution and return its ARN."""
    now = datetime.datetime.now(datetime.UTC)
    name = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    started = stack.client("stepfunctions").start_execution(
        stateMachineArn=stack.state_machine_arn, name=name, input=json.dumps(execution_input)
    )
    return started["executionArn"]


def find(stack: Stack, name: str) -> str:
    """Return the ARN of an execution given by name or ARN. Raises InvalidInput if there is none."""
    stepfunctions = stack.client("stepfunctions")
    arn = (
        name
        if name.startswith("arn:")
        else f"{stack.state_machine_arn.replace(':stateMachine:', ':execution:')}:{name}"
    )
    try:
        return stepfunctions.describe_execution(executionArn=arn)["executionArn"]
    except (stepfunctions.exceptions.ExecutionDoesNotExist, stepfunctions.exceptions.InvalidArn) as error:
        raise InvalidInput(f"there is no execution {name}: `kelpie status` lists them") from error


def stop(stack: Stack, name: str) -> None:
    """Stop an execution given by name or ARN. Raises InvalidInput if there is none, or if it has ended."""
    stepfunctions = stack.client("stepfunctions")
    described = stepfunctions.describe_execution(executionArn=find(stack, name))
    if described["status"] != "RUNNING":
        raise InvalidInput(f"the execution {described['name']} has ended already: {described['status']}")
    stepfunctions.stop_execution(executionArn=described["executionArn"], error="StoppedByUser", cause="kelpie stop")


def recent(stack: Stack, count: int) -> list[dict[str, Any]]:
    """Return the newest executions first, as ListExecutions has them."""
    stepfunctions = stack.client("stepfunctions")
    listed = stepfunctions.list_executions(stateMachineArn=stack.state_machine_arn, maxResults=count)["executions"]
    return sorted(listed, key=lambda execution: execution["startDate"], reverse=True)


def running(stack: Stack) -> list[dict[str, Any]]:
    """Return the executions that have not ended, oldest first, as ListExecutions has them."""
    pages = (
        stack.client("stepfunctions")
        .get_paginator("list_executions")
        .paginate(stateMachineArn=stack.state_machine_arn, statusFilter="RUNNING")
    )
    return sorted((one for page in pages for one in page["executions"]), key=lambda one: one["startDate"])


def run_id(arn: str) -> str:
    """The id that the execution's jobs, objects and documents carry: derived from its ARN, as PlanRun does."""
    return hashlib.sha256(arn.encode()).hexdigest()[:12]


def state_visits(events: Iterable[dict[str, Any]]) -> list[StateVisit]:
    """Return the states in the order in which an execution's history entered them."""
    visits: list[StateVisit] = []
    failed = False
    for event in events:
        if event["type"].endswith("StateEntered"):
            visits.append(StateVisit(event["stateEnteredEventDetails"]["name"], event["timestamp"], None))
            failed = False
        elif event["type"].endswith("StateExited"):
            name = event["stateExitedEventDetails"]["name"]
            at = max(index for index, visit in enumerate(visits) if visit.name == name and visit.left is None)
            visits[at] = StateVisit(name, visits[at].entered, event["timestamp"], failed)
        elif event["type"].endswith(("Failed", "TimedOut", "Scheduled", "Succeeded")):
            failed = event["type"].endswith(("Failed", "TimedOut"))
    return visits


def seconds_by_state(visits: list[StateVisit], ended: datetime.datetime) -> list[dict[str, Any]]:
    """Add the visits of each state up, in the order of first entry; one that was never left lasted until `ended`."""
    seconds: dict[str, float] = {}
    for visit in visits:
        seconds[visit.name] = seconds.get(visit.name, 0.0) + ((visit.left or ended) - visit.entered).total_seconds()
    return [{"name": name, "seconds": round(value, 1)} for name, value in seconds.items()]


def history(stack: Stack, arn: str, known: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
    """Return the events of an execution in their order. known: those of an earlier call, which are not asked for again.

    They are read from the end, since a history cannot be asked for what came after an event.
    """
    last_known = known[-1]["id"] if known else 0
    pages = (
        stack.client("stepfunctions")
        .get_paginator("get_execution_history")
        .paginate(
            executionArn=arn,
            includeExecutionData=False,
            reverseOrder=True,
            PaginationConfig={"PageSize": NEW_EVENTS if known else MOST_EVENTS},
        )
    )
    new: list[dict[str, Any]] = []
    for page in pages:
        new += [event for event in page["events"] if event["id"] > last_known]
        if any(event["id"] <= last_known for event in page["events"]):
            break
    return [*known, *reversed(new)]


def definition(stack: Stack, arn: str) -> dict[str, Any]:
    """Return the state machine that an execution runs, whatever a later deploy has made of it."""
    described = stack.client("stepfunctions").describe_state_machine_for_execution(executionArn=arn)
    return json.loads(described["definition"])


def trials(stack: Stack, run: str) -> list[Trial]:
    """Return the run's trials in the order of their creation, with what is known of each by now."""
    sagemaker = stack.client("sagemaker")
    found = []
    for page in sagemaker.get_paginator("list_hyper_parameter_tuning_jobs").paginate(NameContains=run):
        for job in page["HyperParameterTuningJobSummaries"]:
            pages = sagemaker.get_paginator("list_training_jobs_for_hyper_parameter_tuning_job").paginate(
                HyperParameterTuningJobName=job["HyperParameterTuningJobName"]
            )
            found += [summary for page in pages for summary in page["TrainingJobSummaries"]]
    return [_trial(summary) for summary in sorted(found, key=lambda summary: summary["CreationTime"])]


def jobs(stack: Stack, run: str) -> dict[str, str]:
    """Return the run's training jobs, trials included, with the status of each, newest first."""
    pages = (
        stack.client("sagemaker")
        .get_paginator("list_training_jobs")
        .paginate(NameContains=run, SortBy="CreationTime", SortOrder="Descending", PaginationConfig={"PageSize": 100})
    )
    return {
        summary["TrainingJobName"]: summary["TrainingJobStatus"]
        for page in pages
        for summary in page["TrainingJobSummaries"]
    }


def _trial(summary: dict[str, Any]) -> Trial:
    metric = summary.get("FinalHyperParameterTuningJobObjectiveMetric")
    ended = summary.get("TrainingEndTime")
    started = summary.get("TrainingStartTime") or summary["CreationTime"]
    return Trial(
        name=summary["TrainingJobName"],
        status=summary["TrainingJobStatus"],
        objective=round(metric["Value"], 6) if metric else None,
        hyperparameters=summary["TunedHyperParameters"],
        seconds=round((ended - started).total_seconds(), 1) if ended else None,
    )
