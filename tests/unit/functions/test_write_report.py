import hashlib
import json
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest

BUCKET = "kelpie-123456789012-eu-west-1"
ARN = "arn:aws:states:eu-west-1:123456789012:execution:kelpie:first"
RUN_ID = hashlib.sha256(ARN.encode()).hexdigest()[:12]
START = datetime(2026, 11, 22, 12, tzinfo=UTC)
DESCRIPTION = {
    "TrainingJobName": "kelpie-1-train-1",
    "TrainingJobStatus": "Failed",
    "FailureReason": 'AlgorithmError: DatasetError: 3 images cannot be read: "a.jpg", exit code: 1',
}


class History:
    def __init__(self, *moves):
        """moves: (seconds, name, entered)"""
        self.events = [
            {
                "timestamp": START + timedelta(seconds=seconds),
                "stateEnteredEventDetails" if entered else "stateExitedEventDetails": {"name": name},
            }
            for seconds, name, entered in moves
        ]

    def get_paginator(self, operation):
        assert operation == "get_execution_history"
        return self

    def paginate(self, **_):
        return [{"events": [event]} for event in self.events] + [{"events": [{"timestamp": START}]}]


@pytest.fixture
def app(load, monkeypatch, s3):
    monkeypatch.setenv("BUCKET", BUCKET)
    app = load("write_report")
    moves = [(0, "PlanRun", True), (1.5, "PlanRun", False)]
    for second in (2, 4):
        moves += [(second, "WaitForEndpoint", True), (second + 1, "WaitForEndpoint", False)]
    clients = {"s3": s3, "stepfunctions": History(*moves, (6, "WriteReport", True))}
    monkeypatch.setattr(app, "client", clients.__getitem__)
    return app


@pytest.fixture
def left(put, plan, example):
    """Everything that a run leaves."""
    run = f"s3://{BUCKET}/runs/{RUN_ID}"
    put(f"{run}/plan.json", plan)
    for name in ("leaderboard", "debugger_review", "verdict", "verification"):
        put(f"{run}/{name}.json", example(name))
    put(plan["locations"]["evaluation"], example("evaluation"))


@pytest.fixture
def page(s3):
    def page(answer):
        key = answer["report"].removeprefix(f"s3://{BUCKET}/")
        return s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode()

    return page


@pytest.mark.usefixtures("left")
def test_a_run_that_succeeded(app, context, get, page):
    answer = app.handler({"execution_arn": ARN}, context)
    assert (answer["error"], answer["cause"]) == (None, None)
    summary = get(answer["summary"])
    assert (summary["status"], summary["test_accuracy"], summary["verified"], summary["trials"]) == (
        "succeeded",
        0.75,
        True,
        2,
    )
    assert summary["states"] == [
        {"name": "PlanRun", "seconds": 1.5, "visits": 1},
        {"name": "WaitForEndpoint", "seconds": 2.0, "visits": 2},
        {"name": "WriteReport", "seconds": None, "visits": 1},
    ]
    html = page(answer)
    for shown in (
        "0.7500",
        "002.Afghan_hound",
        "kelpie-3f2a9c0d1e4b-tune-1-002-1a2b3c4d",
        "The loss became NaN",
        "PlanRun",
    ):
        assert shown in html


def test_a_run_that_failed_before_it_left_anything(app, context, get, page):
    failure = {"State": "PlanRun", "Error": "InvalidInput", "Cause": json.dumps({"errorMessage": "dataset is missing"})}
    answer = app.handler({"execution_arn": ARN, "failure": failure}, context)
    assert (answer["error"], answer["cause"]) == ("InvalidInput", "dataset is missing")
    summary = get(answer["summary"])
    assert (summary["status"], summary["state"], summary["endpoint"]) == ("failed", "PlanRun", None)
    assert "dataset is missing" in page(answer)


def test_a_failure_is_told_though_no_page_can_be_written(app, context, s3):
    for item in s3.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        s3.delete_object(Bucket=BUCKET, Key=item["Key"])
    s3.delete_bucket(Bucket=BUCKET)
    failure = {"State": "TrainModel", "Error": "States.TaskFailed", "Cause": json.dumps(DESCRIPTION)}
    answer = app.handler({"execution_arn": ARN, "failure": failure}, context)
    assert answer["report"] is None
    assert answer["error"] == "TrainModelFailed"
    with pytest.raises(Exception, match="NoSuchBucket"):
        app.handler({"execution_arn": ARN}, context)


@pytest.mark.usefixtures("left")
def test_a_document_that_breaks_its_contract_is_told_and_the_rest_is_shown(app, context, put, page):
    put(f"s3://{BUCKET}/runs/{RUN_ID}/verdict.json", {"version": 1, "verdict": "maybe"})
    html = page(app.handler({"execution_arn": ARN}, context))
    assert "verdict.json does not keep the contract verdict" in html
    assert "Confusion matrix" in html


@pytest.mark.usefixtures("left")
def test_everything_shown_is_escaped_and_nothing_is_fetched(app, context, put, example, plan, page):
    evil = "<script>alert(1)</script><img src=http://x onerror=alert(1)>&'\""
    evaluation = example("evaluation")
    evaluation["classes"][0] = evaluation["per_class"][0]["label"] = evaluation["mistakes"][0]["label"] = evil
    evaluation["mistakes"][0]["path"] = evil
    put(plan["locations"]["evaluation"], evaluation)
    leaderboard = example("leaderboard")
    leaderboard["trials"][1]["failure_reason"] = evil
    put(f"s3://{BUCKET}/runs/{RUN_ID}/leaderboard.json", leaderboard)
    failure = {"State": "VerifyEndpoint", "Error": "EndpointAnswersDiffer", "Cause": evil}
    html = page(app.handler({"execution_arn": ARN, "failure": failure}, context))
    tags = Tags()
    tags.feed(html)
    assert not tags.seen & {"script", "img", "link", "iframe", "a"}
    assert not tags.attributes & {"src", "href", "onerror"}
    assert tags.text.count(evil) == 7  # cause, trial, head and row of the matrix, class, path and label of a mistake


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.attributes, self.text = set(), set(), ""

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize(
    ("raw", "error", "cause"),
    [
        (
            {"State": "TrainModel", "Error": "States.TaskFailed", "Cause": json.dumps(DESCRIPTION)},
            "TrainModelFailed",
            f"The job kelpie-1-train-1 ended Failed: {DESCRIPTION['FailureReason']}",
        ),
        (
            {"State": "TrainModel", "Error": "States.TaskFailed", "Cause": json.dumps(DESCRIPTION)[:-9]},
            "TrainModelFailed",
            None,
        ),
        (
            {
                "State": "TrainModel",
                "Error": "States.TaskFailed",
                "Cause": json.dumps({**DESCRIPTION, "Tags": "x"})[:-9],
            },
            "TrainModelFailed",
            DESCRIPTION["FailureReason"],
        ),
        (
            {"State": "TrainModel", "Error": "States.Timeout", "Cause": ""},
            "TrainModelTimedOut",
            "TrainModel ended with",
        ),
        ({"State": "PlanRun", "Error": "DatasetError", "Cause": "plain words"}, "DatasetError", "plain words"),
        ({"State": "PlanRun", "Error": "X", "Cause": "[1, 2]"}, "X", "[1, 2]"),
        ({"State": "PlanRun", "Error": "X", "Cause": '{"a": 1}'}, "X", '{"a": 1}'),
        (
            {
                "State": "TuneHyperparameters",
                "Error": "States.TaskFailed",
                "Cause": json.dumps(
                    {"HyperParameterTuningJobName": "tune-1", "HyperParameterTuningJobStatus": "Stopped"}
                ),
            },
            "TuneHyperparametersFailed",
            "The job tune-1 ended Stopped: no reason given",
        ),
    ],
)
def test_a_failure_is_named_and_said_in_a_sentence(load, raw, error, cause):
    explained = load("write_report", "failure").explain(raw)
    assert explained.error == error
    assert explained.cause
    if cause:
        assert explained.cause.startswith(cause)


def test_a_rollback_that_failed_is_told_even_after_a_long_cause(load):
    raw = {"State": "VerifyEndpoint", "Error": "E", "Cause": "x" * 100_000, "RollBack": "the endpoint is Failed"}
    explained = load("write_report", "failure").explain(raw)
    assert explained.cause.endswith("The rollback did not succeed: the endpoint is Failed")
    assert len(explained.cause) <= 4_000


def test_the_matrix_of_very_many_classes_is_left_to_its_document(load, example):
    page = load("write_report", "page")
    labels = [f"class {number}" for number in range(50)]
    evaluation = {**example("evaluation"), "classes": labels, "confusion_matrix": [[0] * 50] * 50}
    summary = {**example("summary"), "status": "succeeded", "test_accuracy": None}
    html = page.render(summary, {"evaluation": evaluation}, [])
    assert "50 classes is in evaluation.json" in html
