"""What a deployed stack promises, seen through ordinary clients. tests/local asks the same of many more cases."""

import hashlib
import json

import pytest

pytestmark = pytest.mark.cloud


def test_what_a_run_can_cost_is_said_before_anything_is_paid_for(stack, refused):
    ended = stack.describe(refused)
    assert (ended["status"], ended["error"]) == ("FAILED", "BudgetExceeded"), ended["cause"]
    assert "can cost up to $" in ended["cause"]
    assert stack.paid_jobs(refused) == []


def test_a_run_ends_with_its_model_in_service_and_tells_all(stack, champion):
    stack.assert_deployed(champion)
    output = json.loads(stack.describe(champion)["output"])
    assert (output["run_id"], output["endpoint"]) == (stack.run_id(champion), stack.endpoint_name)
    assert output["endpoint_config"] == stack.endpoint()["EndpointConfigName"]
    for uri in (output["report"], output["model_data"]):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        assert stack.client("s3").head_object(Bucket=bucket, Key=key)["ContentLength"]
    assert champion.rpartition(":")[2] in stack.report(champion)


def test_an_image_in_the_inbox_comes_back_classified(stack, champion, picture):
    stack.assert_deployed(champion)
    key = "inbox/tests/a cat+1.png"
    stored = stack.client("s3").put_object(Bucket=stack.outputs["Bucket"], Key=key, Body=picture("cat", 150))
    at = f"results/{hashlib.sha256(key.encode()).hexdigest()}/{stored['VersionId']}.json"

    def result():
        try:
            return stack.read(at)
        except stack.client("s3").exceptions.NoSuchKey:
            return None

    answer = stack.wait_until(result, lambda: at)
    assert (answer["key"], answer["status"], answer["label"]) == (key, "classified", "cat")


def test_a_challenger_that_is_worse_is_rejected(stack, champion, misleading, settings):
    stack.assert_deployed(champion)
    serving = stack.endpoint()["EndpointConfigName"]
    # ShuffledLabels would end the training of a model that is to be judged.
    execution = stack.start(misleading, **settings, debugger={"enabled": False})
    stack.end_of(execution)
    stack.assert_rejected(execution, serving)


def test_a_model_that_answers_too_slowly_is_taken_back(stack, champion, good, settings):
    stack.assert_deployed(champion)
    serving = stack.endpoint()["EndpointConfigName"]
    execution = stack.start(good, **settings, serving={"max_latency_milliseconds": 1})
    stack.end_of(execution)
    stack.assert_taken_back(execution, "EndpointTooSlow", serving)
