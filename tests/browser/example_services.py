"""Step Functions, SageMaker and CloudWatch Logs of a run that never was, as far as WriteReport asks them."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.browser.example_run import ROOT, ExampleRun

START = datetime(2026, 11, 22, 12, tzinfo=UTC)
JOBS = {
    "prepare": "PrepareDataset",
    "train": "TrainModel",
    "optimize": "OptimizeModel",
    "evaluate": "EvaluateModel",
}


class ExampleServices:
    """Answers as the three clients do."""

    def __init__(self, run: ExampleRun):
        self._run = run

    def get_paginator(self, _operation: str) -> "ExampleServices":
        return self

    def paginate(self, **asked: Any) -> list[dict[str, Any]]:
        jobs = [name for name in self._jobs() if asked.get("NameContains", "") in name]
        return [{"events": list(self._events()), "TrainingJobSummaries": [{"TrainingJobName": name} for name in jobs]}]

    def describe_training_job(self, TrainingJobName: str) -> dict[str, Any]:  # noqa: N803 - AWS's name
        return {"ResourceConfig": {"InstanceCount": 1}, "BillableTimeInSeconds": self._jobs()[TrainingJobName]}

    def _jobs(self) -> dict[str, int]:
        """Return the seconds of each job whose state was entered."""
        seconds = dict(self._run.path)
        return {self._run.plan["names"][step]: int(seconds[state]) for step, state in JOBS.items() if state in seconds}

    def describe_state_machine_for_execution(self, **_: Any) -> dict[str, str]:
        text = (ROOT / "statemachine" / "train_and_deploy.asl.json").read_text()
        return {"definition": re.sub(r"\$\{\w+\}", "1", text)}

    def describe_log_streams(self, **_: Any) -> dict[str, Any]:
        return {
            "logStreams": [
                {"logStreamName": f"{self._run.plan['names']['train']}/algo-1-1795348800", "creationTime": 1}
            ]
            if self._run.log
            else []
        }

    def get_log_events(self, **_: Any) -> dict[str, Any]:
        return {"events": [{"message": line} for line in self._run.log]}

    def _events(self) -> Iterator[dict[str, Any]]:
        at = START
        yield {"timestamp": at}
        for state, seconds in self._run.path:
            yield {"timestamp": at, "stateEnteredEventDetails": {"name": state}}
            if state in self._run.retried:
                yield {"timestamp": at, "taskScheduledEventDetails": {}}
                yield {"timestamp": at, "taskFailedEventDetails": {"error": self._run.retried[state]}}
            yield {"timestamp": at, "taskScheduledEventDetails": {}}
            at += timedelta(seconds=seconds)
            if state in self._run.failures:
                yield {"timestamp": at, "taskFailedEventDetails": {"error": self._run.failures[state]}}
            if (state, seconds) != self._run.path[-1]:
                yield {"timestamp": at, "stateExitedEventDetails": {"name": state}}
