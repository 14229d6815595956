import hashlib
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from types import SimpleNamespace
from unittest import mock

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from tests.unit.functions.test_failures_told import DESCRIPTION

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


@pytest.mark.usefixtures("left")
def test_attempts_are_told_with_what_the_first_had_of_what_the_second_changed(app, context, page):
    html = page(app.handler({"execution_arn": ARN}, context))
    rows = [html[html.index(f"train-{attempt}</a>") :].partition("</tr>")[0] for attempt in (1, 2)]
    scales = [re.findall(r'<td class="number">([^<]*)</td>', row)[-1] for row in rows]
    assert scales == ["1", "0.1"]


@pytest.mark.usefixtures("left")
def test_a_run_that_succeeded(app, context, get, page):
    package = "arn:aws:sagemaker:eu-west-1:123456789012:model-package/kelpie/7"
    answer = app.handler({"execution_arn": ARN, "model_package_arn": package}, context)
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
    sections = ("path", "data", "tuning", "training", "evaluation", "gate", "deployment", "lineage")
    assert [name for name in sections if f'<section id="{name}"' not in html] == []
    for shown in (
        "75.0\u00a0%",
        "002.Afghan_hound",
        "kelpie-3f2a9c0d1e4b-tune-1-002-1a2b3c4d",
        "The loss became NaN",
        "image file is truncated",
        "0.1 of the tuned one",
        package,
    ):
        assert shown in html
    profile = page({"report": answer["report"].replace("index.html", "profiler-report.html")})
    assert "aten::convolution_backward" in profile
    assert "Gradient norms by layer" in profile


def test_a_training_costs_all_that_is_billed_of_it_whatever_its_state_took(app, context, jobs, put, plan, page):
    """On each of its instances, before and after a redrive, and adopted: its state was left within seconds then."""
    priced = {"step": "train", "instance_type": "ml.m5.xlarge", "instance_count": 8, "usd_per_hour": 0.23}
    plan["cost"]["jobs"] = [{**priced, "jobs": 2, "most_seconds": 43200, "most_usd": 44.16}]
    put(f"s3://{BUCKET}/runs/{RUN_ID}/plan.json", plan)
    train = plan["names"]["train"].removesuffix("1")
    jobs |= {f"{train}1": (8, 3600), f"{train}2": (8, 1800), f"{train}3": (8, None), "others-train-1": (8, 9000)}
    app.course_of = lambda *_: app.read_course(
        [moment(0), entered(0, "TrainModel"), exited(2, "TrainModel"), entered(2, "WriteReport")]
    )
    assert "$2.76" in page(app.handler({"execution_arn": ARN}, context))


@pytest.mark.usefixtures("left")
def test_the_lineage_names_the_jobs_that_the_model_came_from(app, context, jobs, plan, page):
    train, optimize = plan["names"]["train"], plan["names"]["optimize"]
    jobs |= dict.fromkeys((train, f"{train[:-1]}2", optimize), (1, 60))
    lineage = page(app.handler({"execution_arn": ARN}, context)).partition('<section id="lineage"')[2]
    assert f"{train[:-1]}2" in lineage
    assert optimize in lineage
    assert train not in lineage.replace(f"checkpoints/{train}/", "")


NO_CONNECTION = EndpointConnectionError(endpoint_url="https://away")


@pytest.mark.parametrize(
    "error", [ClientError({"Error": {"Code": "ThrottlingException", "Message": "slow"}}, "Describe"), NO_CONNECTION]
)
@pytest.mark.usefixtures("left")
def test_a_report_is_written_where_sagemaker_does_not_tell_what_jobs_took(app, context, jobs, plan, page, error):
    jobs[plan["names"]["train"]] = (1, 60)
    app.client("sagemaker").describe_training_job = mock.Mock(side_effect=error)
    html = page(app.handler({"execution_arn": ARN}, context))
    assert f"What the jobs cost is not known: {type(error).__name__}" in html


@pytest.mark.usefixtures("left")
def test_what_no_connection_came_about_for_costs_the_report_nothing_else(app, context, s3, plan, page, monkeypatch):
    """The leaderboard, every picture, and the log of what failed."""
    read = s3.get_object

    def get_object(**asked):
        if asked["Key"].endswith((".jpg", "leaderboard.json")):
            raise NO_CONNECTION
        return read(**asked)

    monkeypatch.setattr(app.client("logs"), "describe_log_streams", mock.Mock(side_effect=NO_CONNECTION))
    failure = {"State": "TrainModel", "Error": "States.TaskFailed", "Cause": json.dumps(DESCRIPTION)}
    with monkeypatch.context() as away:
        away.setattr(s3, "get_object", get_object)
        answer = app.handler({"execution_arn": ARN, "failure": failure}, context)
    html = page(answer)
    assert "leaderboard.json could not be read" in html
    assert "The log /aws/sagemaker/TrainingJobs could not be read" in html
    assert plan["run_id"] in html


def test_a_failure_is_told_though_nothing_can_be_asked(app, context, s3, monkeypatch):
    monkeypatch.setattr(s3, "put_object", mock.Mock(side_effect=NO_CONNECTION))
    failure = {"State": "TrainModel", "Error": "States.TaskFailed", "Cause": json.dumps(DESCRIPTION)}
    answer = app.handler({"execution_arn": ARN, "failure": failure}, context)
    assert (answer["report"], answer["error"]) == (None, "TrainModelFailed")


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
    assert "The section Gate is missing" in html
    assert "Confusion matrix" in html


@pytest.mark.usefixtures("left")
def test_what_the_outcome_cannot_tell_of_costs_nothing_else(app, context, put, example, plan, page):
    evaluation = example("evaluation")
    del evaluation["images"]
    put(plan["locations"]["evaluation"], evaluation)
    html = page(app.handler({"execution_arn": ARN}, context))
    assert "The outcome in figures is missing: KeyError" in html
    assert ">Deployed</h1>" in html
    assert "kelpie-3f2a9c0d1e4b-tune-1-002-1a2b3c4d" in html


@pytest.mark.usefixtures("left")
def test_what_a_template_cannot_show_costs_its_section_alone(app, context, page, monkeypatch):
    of_pages = sys.modules["page"]
    monkeypatch.setattr(of_pages, "RUN", (("gate", "Gate", lambda _run: {"verdict": "accept"}), *of_pages.RUN))
    html = page(app.handler({"execution_arn": ARN}, context))
    assert "The section Gate is missing: UndefinedError" in html
    assert "Confusion matrix" in html


@pytest.mark.usefixtures("left")
def test_a_document_of_an_older_form_is_shown_as_far_as_it_goes(app, context, put, example, plan, page):
    evaluation = example("evaluation")
    for name in ("accuracy_interval", "macro_f1_interval", "calibration", "answered"):
        del evaluation[name]
    for one in evaluation["per_class"]:
        del one["recall_interval"]
    evaluation["worst_mistakes"] = evaluation.pop("mistakes")
    put(plan["locations"]["evaluation"], evaluation)
    html = page(app.handler({"execution_arn": ARN}, context))
    assert "does not keep the contract evaluation" in html
    assert "30.1\u00a0% to 95.4\u00a0%" in html  # Wilson 1927: 3 of 4
    assert "Recall by class" in html
    assert "Reliability" not in html
    assert "taken for" in html


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
    assert not tags.seen & {"script", "iframe", "object", "link", "form"}
    assert [name for name, _ in tags.attributes if name.startswith("on")] == []
    addresses = [value for name, value in tags.attributes if name in ("href", "src", "xlink:href")]
    assert [address for address in addresses if not address.startswith(("#", "data:image/", "https://"))] == []
    assert all(".console.aws.amazon.com/" in address for address in addresses if address.startswith("https://"))
    assert [value for name, value in tags.attributes if name == "style" and evil in value] == []
    assert tags.text.count(evil) > 6  # cause, trial, matrix, recalls, classes, path and label of a mistake


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen, self.attributes, self.text = set(), set(), ""

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.attributes |= set(attrs)

    def handle_data(self, data):
        self.text += data


def test_the_log_of_the_job_that_failed_ends_with_its_last_traceback(app, context, log, page):
    traceback = ["Traceback (most recent call last):", *(f'  File "{n}.py"' for n in range(60)), "MemoryError: <none>"]
    log["/aws/sagemaker/TrainingJobs"] = {
        "kelpie-1-train-1/algo-1-1": ["epoch 1/2", *traceback],
        "kelpie-1-train-10/algo-1-1": ["of another job"],
    }
    failure = {"State": "TrainModel", "Error": "States.TaskFailed", "Cause": json.dumps(DESCRIPTION)}
    html = page(app.handler({"execution_arn": ARN, "failure": failure}, context))
    assert "MemoryError: &lt;none&gt;" in html
    assert "Traceback (most recent call last):\n… 23 lines …\n" in html
    assert "epoch 1/2" not in html
    assert "of another job" not in html


def test_a_picture_beside_the_evaluation_is_on_the_page(app, context, s3, plan, page, request):
    request.getfixturevalue("left")
    folder = plan["locations"]["evaluation"].removeprefix(f"s3://{BUCKET}/").rpartition("/")[0]
    s3.put_object(Bucket=BUCKET, Key=f"{folder}/mistakes/0001.jpg", Body=b"a picture")
    html = page(app.handler({"execution_arn": ARN}, context))
    assert '<img src="data:image/jpeg;base64,YSBwaWN0dXJl" alt="test/001.Affenpinscher/d.jpg">' in html


def test_the_course_of_an_execution_tells_visits_times_retries_and_errors(load):
    failed = {"error": "SageMaker.AmazonSageMakerException"}
    scheduled = {"taskScheduledEventDetails": {}}
    course = load("write_report", "history").read_course(
        [
            entered(0, "CreateModel"),
            moment(0, **scheduled),
            moment(1, taskFailedEventDetails=failed),
            moment(2, **scheduled),
            exited(3, "CreateModel"),
            entered(3, "TrainModel"),
            moment(3, **scheduled),
            moment(9, taskFailedEventDetails={"error": "States.TaskFailed"}),
            exited(9, "TrainModel"),
            entered(9, "WriteFailureReport"),
        ]
    )
    told = [(one.name, one.visits, one.seconds, one.retries, one.error) for one in course.states]
    assert told == [
        ("CreateModel", 1, 3.0, 1, None),
        ("TrainModel", 1, 6.0, 0, "States.TaskFailed"),
        ("WriteFailureReport", 1, None, 0, None),
    ]
    assert course.steps[("TrainModel", "WriteFailureReport")] == 1
    assert course.seconds == 9


def test_a_matrix_of_very_many_classes_is_shown_whole_and_by_its_most_confused(load, example):
    labels = [f"class {number}" for number in range(50)]
    matrix = [[0] * 50 for _ in labels]
    matrix[7][9] = 5
    evaluation = {**example("evaluation"), "classes": labels, "confusion_matrix": matrix}
    whole, confused = load("write_report", "evaluation").matrices(evaluation)
    assert (whole.title, "class 7" in whole.svg) == ("Confusion matrix of all 50 classes", False)
    assert ">class 7<" in confused.svg


def test_prices_that_were_old_when_the_run_was_planned_are_told(load):
    path = load("write_report", "path")
    assert path._age("2025-06-30", "2026-06-30T23:00:00Z") == ""
    assert "(510 days old: compare them with https://aws.amazon.com/" in path._age("2025-06-30", "2026-11-22T12:00:00Z")
