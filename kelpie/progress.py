"""What a run has come to by now: states, trials, epochs and findings, read anew each time it is asked.

The terminal and the page both show it. It is gathered through AWS's APIs alone, and only what is new is read again.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Any

from kelpie import documents, execution, graph
from kelpie.errors import RunFailed
from kelpie.execution import EPOCH, StateVisit, Trial
from kelpie.graph import Node
from kelpie.log_streams import JobLogs
from kelpie.stack import Stack

TUNING_STATE = "TuneHyperparameters"
OVER = ("SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED")


@dataclass(frozen=True)
class Epoch:
    job: str
    number: int
    of: int
    values: dict[str, float]
    """What the job printed: train_loss, valid_accuracy, ..."""
    line: str


@dataclass(frozen=True)
class Progress:
    described: dict[str, Any]
    """The execution, as DescribeExecution has it."""
    visits: list[StateVisit]
    trials: list[Trial]
    epochs: dict[str, list[Epoch]]
    """By job, in the order in which they were printed."""
    jobs: list[str]
    """Of the run's training jobs those in progress, newest first."""
    findings: list[dict[str, Any]]
    """Of every final training, as contracts/findings.schema.json has them, with the job's name."""
    path: list[Node]
    again: dict[str, str] = field(default_factory=dict)
    """By final training that was not accepted: why the model was trained again, and what changed."""

    @property
    def run(self) -> str:
        return execution.run_id(self.described["executionArn"])

    @property
    def status(self) -> str:
        return str(self.described["status"])

    @property
    def over(self) -> bool:
        return self.status in OVER

    @property
    def seconds(self) -> float:
        ended = self.described.get("stopDate") or datetime.datetime.now(datetime.UTC)
        return max(0.0, round((ended - self.described["startDate"]).total_seconds(), 1))


class Follower:
    """Reads one execution again and again. What has ended is not read anew, unless it is redriven.

    A `read` that is cut short by an error of AWS's clients loses nothing: the next one goes on where it was.
    """

    def __init__(self, stack: Stack, arn: str):
        self.run = execution.run_id(arn)
        self._stack = stack
        self._arn = arn
        self._definition: dict[str, Any] | None = None
        self._events: list[dict[str, Any]] = []
        self._logs: dict[str, JobLogs] = {}
        self._epochs: dict[str, list[Epoch]] = {}
        self._trials: list[Trial] = []
        self._tuned = False
        self._findings: dict[str, list[dict[str, Any]]] = {}
        self._last: Progress | None = None

    def read(self) -> Progress:
        described = self._stack.client("stepfunctions").describe_execution(executionArn=self._arn)
        if self._last is not None and self._last.over and described["status"] == self._last.status:
            return self._last
        self._events = execution.history(self._stack, self._arn, self._events)
        visits = execution.state_visits(self._events)
        running = self._read_jobs()
        self._read_trials(visits)
        self._last = Progress(
            described=described,
            visits=visits,
            trials=self._trials,
            epochs={job: list(epochs) for job, epochs in self._epochs.items()},
            jobs=running,
            findings=[finding for job in sorted(self._findings) for finding in self._findings[job]],
            path=self._path(described, visits),
            again=trained_again(self._stack, self.run),
        )
        return self._last

    def _path(self, described: dict[str, Any], visits: list[StateVisit]) -> list[Node]:
        if self._definition is None:
            self._definition = execution.definition(self._stack, self._arn)
        until = described.get("stopDate") or datetime.datetime.now(datetime.UTC)
        return graph.path(self._definition, visits, described["status"], until)

    def _read_jobs(self) -> list[str]:
        """Read what has been printed since the last time: by jobs in progress, and by final trainings to the end, since
        logs come later than a job's status."""
        statuses = execution.jobs(self._stack, self.run)
        for job, status in statuses.items():
            final = is_final_training(job, self.run)
            if not final and status != "InProgress":
                continue
            for line in self._logs.setdefault(job, JobLogs(self._stack, job)).read():
                if (epoch := read_epoch(job, line.message)) is not None:
                    self._epochs.setdefault(job, []).append(epoch)
            if final:
                self._findings[job] = self._read_findings(job)
        return [job for job, status in statuses.items() if status == "InProgress"]

    def _read_trials(self, visits: list[StateVisit]) -> None:
        """Read the trials while they run and once after; before and after that nothing of them changes."""
        tuning = [visit for visit in visits if visit.name == TUNING_STATE]
        if tuning and not (self._tuned and tuning[-1].left):
            self._trials = execution.trials(self._stack, self.run)
            self._tuned = tuning[-1].left is not None

    def _read_findings(self, job: str) -> list[dict[str, Any]]:
        uri = f"s3://{self._stack.bucket}/runs/{self.run}/checkpoints/{job}/findings.json"
        try:
            document = documents.read(self._stack.client("s3"), uri, "findings")
        except RunFailed as error:
            unread: dict[str, Any] = {"rule": "Hooks", "status": "Error", "step": None, "tensor": None, "values": {}}
            return [{**unread, "message": str(error), "job": job}]
        return [{**finding, "job": job} for finding in document["findings"]] if document else []


def trained_again(stack: Stack, run: str) -> dict[str, str]:
    """Return the run's final trainings that were not accepted but done again, each with the reason and what changed.

    Raises RunFailed for a review that breaks its contract.
    """
    uri = f"s3://{stack.bucket}/runs/{run}/debugger_review.json"
    review = documents.read(stack.client("s3"), uri, "debugger_review")
    attempts = review["attempts"] if review else []
    return {attempt["job"]: attempt["reason"] for attempt in attempts if attempt["verdict"] == "retrain"}


def is_final_training(job: str, run: str) -> bool:
    """Whether a job is the run's final training, or a second attempt at it: not a trial."""
    return f"-{run}-train-" in job


def read_epoch(job: str, message: str) -> Epoch | None:
    """Return what a job's log line says of an epoch, or None if it is another line."""
    matched = EPOCH.match(message)
    if not matched:
        return None
    values = {}
    for part in matched["values"].split():
        name, equals, text = part.partition("=")
        if equals:
            try:
                values[name] = float(text)
            except ValueError:
                continue
    return Epoch(job, int(matched["epoch"]), int(matched["epochs"]), values, message.rstrip())
