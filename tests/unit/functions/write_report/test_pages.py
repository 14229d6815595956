"""What a report shows."""

import json
import re
from html.parser import HTMLParser

import pytest

from tests.unit.functions.test_failures_told import DESCRIPTION
from tests.unit.functions.write_report.conftest import ARN, BUCKET, RUN_ID, entered, exited, moment


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
