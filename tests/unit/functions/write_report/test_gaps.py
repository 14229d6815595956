"""What a report does without: services that do not answer, documents that are missing or of another form."""

import json
import sys
from unittest import mock

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from tests.unit.functions.test_failures_told import DESCRIPTION
from tests.unit.functions.write_report.conftest import ARN, BUCKET, RUN_ID

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
