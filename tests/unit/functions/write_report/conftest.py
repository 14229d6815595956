"""WriteReport, a run of whose documents it is told, and the services that it asks about it."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

BUCKET = "kelpie-123456789012-eu-west-1"
ARN = "arn:aws:states:eu-west-1:123456789012:execution:kelpie:first"
RUN_ID = hashlib.sha256(ARN.encode()).hexdigest()[:12]
START = datetime(2026, 11, 22, 12, tzinfo=UTC)


DEFINITION = {
    "StartAt": "PlanRun",
    "States": {
        "PlanRun": {"Type": "Task", "Next": "WaitForEndpoint"},
        "WaitForEndpoint": {"Type": "Choice", "Choices": [{"Next": "WaitForEndpoint"}], "Default": "WriteReport"},
        "WriteReport": {"Type": "Task", "End": True},
        "FailRun": {"Type": "Fail"},
    },
}


def moment(seconds, **details):
    return {"timestamp": START + timedelta(seconds=seconds), **details}


def entered(seconds, name):
    return moment(seconds, stateEnteredEventDetails={"name": name})


def exited(seconds, name):
    return moment(seconds, stateExitedEventDetails={"name": name})


class Execution:
    """Step Functions, SageMaker and CloudWatch Logs, as far as they are asked."""

    def __init__(self, events, log, jobs):
        self.events, self.log, self.jobs = events, log, jobs

    def get_paginator(self, operation):
        pages = {"get_execution_history": self.history, "list_training_jobs": self.list_training_jobs}
        return SimpleNamespace(paginate=pages[operation])

    def history(self, **_):
        return [{"events": [event]} for event in self.events]

    def list_training_jobs(self, NameContains, **_):  # noqa: N803
        return [{"TrainingJobSummaries": [{"TrainingJobName": name} for name in self.jobs if NameContains in name]}]

    def describe_training_job(self, TrainingJobName):  # noqa: N803
        instances, seconds = self.jobs[TrainingJobName]
        ended = {} if seconds is None else {"BillableTimeInSeconds": seconds}
        return {"ResourceConfig": {"InstanceCount": instances}, **ended}

    def describe_state_machine_for_execution(self, executionArn):  # noqa: N803 - AWS's name
        assert executionArn == ARN
        return {"definition": json.dumps(DEFINITION)}

    def describe_log_streams(self, logGroupName, logStreamNamePrefix="", **_):  # noqa: N803
        streams = [name for name in self.log.get(logGroupName, {}) if name.startswith(logStreamNamePrefix)]
        return {"logStreams": [{"logStreamName": name} for name in streams]}

    def get_log_events(self, logGroupName, logStreamName, **_):  # noqa: N803
        return {"events": [{"message": line} for line in self.log[logGroupName][logStreamName]]}


@pytest.fixture
def log():
    """Lines by log group and stream; a test may add to it."""
    return {}


@pytest.fixture
def jobs():
    """Instances and billed seconds, None of a job that goes on, by job; a test may add to it."""
    return {}


@pytest.fixture
def app(load, monkeypatch, s3, log, jobs):
    monkeypatch.setenv("BUCKET", BUCKET)
    app = load("write_report")
    events = [moment(0), entered(0, "PlanRun"), exited(1.5, "PlanRun")]
    for second in (2, 4):
        events += [entered(second, "WaitForEndpoint"), exited(second + 1, "WaitForEndpoint")]
    execution = Execution([*events, entered(6, "WriteReport")], log, jobs)
    clients = {"s3": s3, "stepfunctions": execution, "sagemaker": execution, "logs": execution}
    monkeypatch.setattr(app, "client", clients.__getitem__)
    return app


@pytest.fixture
def left(put, plan, example):
    """Everything that a run leaves."""
    run = f"s3://{BUCKET}/runs/{RUN_ID}"
    put(f"{run}/plan.json", plan)
    for name in ("leaderboard", "verdict", "verification"):
        put(f"{run}/{name}.json", example(name))
    review = example("debugger_review")
    for attempt in review["attempts"]:
        attempt["checkpoints"] = plan["locations"]["train_checkpoints"]
    put(f"{run}/debugger_review.json", review)
    put(plan["locations"]["manifest"] + "manifest.json", example("manifest"))
    for name in ("findings", "profile", "training_history"):
        put(f"{plan['locations']['train_checkpoints']}{name}.json", example(name))
    put(plan["locations"]["evaluation"], example("evaluation"))


@pytest.fixture
def page(s3):
    def page(answer):
        key = answer["report"].removeprefix(f"s3://{BUCKET}/")
        return s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode()

    return page
