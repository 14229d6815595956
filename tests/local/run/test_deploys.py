"""Whatever becomes of a deploy, the champion answers: models that are no good, executions that end in the middle."""

import dataclasses
import json

import pytest

from tests.waiting import PATIENCE_SECONDS

PAID_JOBS = 5
"""Of a run with one trial: preparation, tuning job, trial, training, evaluation."""
STOPPED_IN = ["EvaluateModel", "WaitForEndpoint", "VerifyEndpoint"]
"""In the middle of a job, of an update, of a verification; `test_ended_executions` ends one in every state."""


@pytest.fixture
def before(champion):
    """The champion's configuration and weights, which every test here must leave in service."""
    serving = champion.endpoint()["EndpointConfigName"], champion.answer()["model"]["weights_sha256"]
    yield serving
    champion.cloud.clear_faults()
    champion.assert_serves(serving[0])
    assert champion.answer()["model"]["weights_sha256"] == serving[1]


def test_an_alarm_during_baking_calls_the_canary_off(champion, before, client_of):
    """The model fails when it is not new any more: that shows in the canary's share of the traffic alone.

    Before the tests that make an endpoint fail: an alarm that rings already calls off any update.
    """
    canary = {"traffic": "canary", "canary_percent": 20, "bake_seconds": 120, "instance_count": 2}
    with client_of(champion) as client:
        execution = champion.start(champion.dataset(serves="errors_later"), serving=canary)
        ended = champion.end_of(execution)
    assert (ended["status"], ended["error"]) == ("FAILED", "EndpointRolledBack"), ended["cause"]
    challenger = [weights for weights in client.answers if weights != before[1]]
    assert client.failures
    assert len(client.failures) + len(challenger) <= 0.25 * (len(client.failures) + len(client.answers))
    champion.wait_until_recovered(execution)


@pytest.mark.parametrize(
    ("serves", "error"),
    [
        ("crash", "EndpointRolledBack"),
        ("wrong", "EndpointAnswersDiffer"),
        ("wrong_on_traffic", "EndpointAnswersDiffer"),
        ("errors", "EndpointAnswersDiffer"),
        ("slow", "EndpointTooSlow"),
    ],
)
def test_a_model_that_is_no_good_is_taken_back(champion, before, client_of, serves, error):
    with client_of(champion) as client:
        execution = champion.start(champion.dataset(serves=serves, images=8), serving={"max_latency_milliseconds": 500})
        ended = champion.end_of(execution)
        champion.wait_until_recovered(execution)
    assert (ended["status"], ended["error"]) == ("FAILED", error), ended["cause"]
    assert len(champion.paid_jobs(execution)) == PAID_JOBS
    if serves == "crash":  # what the start shows, no client sees
        assert set(client.answers) == {before[1]}
        page = champion.report(execution)
        assert "EndpointRolledBack in HasEndpointSettled" in page
        assert f"/aws/sagemaker/Endpoints/{champion.endpoint_name}" in page[page.index("The log's end") :]
    if serves != "errors":  # whose model serves until VerifyEndpoint has asked it
        assert client.failures == []


@pytest.mark.parametrize("artifact", ["missing", "corrupt"])
def test_an_artifact_that_is_not_there_or_not_whole_never_serves(champion, before, client_of, artifact):
    champion.cloud.inject("StartDelay", Name=champion.endpoint_name, Seconds=3600)
    with client_of(champion) as client:
        execution = champion.start(champion.dataset())
        champion.wait_for_state(execution, "WaitForEndpoint")
        champion.wait_until_faulted()
        key = f"runs/{champion.run_id(execution)}/jobs/{champion.name}-{champion.run_id(execution)}-train-1"
        where = {"Bucket": champion.outputs["Bucket"], "Key": f"{key}/output/model.tar.gz"}
        s3 = champion.client("s3")
        s3.head_object(**where)
        s3.delete_object(**where) if artifact == "missing" else s3.put_object(**where, Body=b"half a tar")
        champion.cloud.clear_faults()
        ended = champion.end_of(execution)
    assert (ended["status"], ended["error"]) == ("FAILED", "EndpointRolledBack"), ended["cause"]
    assert set(client.answers) == {before[1]}
    assert client.failures == []
    champion.wait_until_recovered(execution)


def test_capacity_that_is_missing_leaves_the_champion(champion, before, client_of):
    champion.cloud.inject("InsufficientCapacity", Name=champion.endpoint_name)
    with client_of(champion) as client:
        execution = champion.start(champion.dataset())
        ended = champion.end_of(execution)
    assert (ended["status"], ended["error"]) == ("FAILED", "EndpointRolledBack")
    assert client.failures == []
    assert champion.endpoint()["EndpointConfigName"] == before[0]
    champion.wait_until_recovered(execution)


def test_an_endpoint_that_somebody_updates_is_left_to_them(champion, before):
    execution = champion.start(champion.dataset())
    champion.wait_for_state(execution, "EvaluateModel")
    champion.cloud.inject("StartDelay", Name=champion.endpoint_name, Seconds=3600)
    champion.client("sagemaker").update_endpoint(EndpointName=champion.endpoint_name, EndpointConfigName=before[0])
    ended = champion.end_of(execution)
    assert (ended["status"], ended["error"]) == ("FAILED", "EndpointNotInService"), ended["cause"]
    champion.cloud.clear_faults()
    champion.client("sagemaker").get_waiter("endpoint_in_service").wait(
        EndpointName=champion.endpoint_name, WaiterConfig={"Delay": 1, "MaxAttempts": PATIENCE_SECONDS}
    )
    champion.wait_until_recovered(execution)


@pytest.mark.parametrize("state", STOPPED_IN)
def test_an_execution_that_is_stopped_is_cleaned_up_after(champion, before, client_of, state):
    if state == "WaitForEndpoint":
        champion.cloud.inject("StartDelay", Name=champion.endpoint_name, Seconds=3600)
    execution = champion.start(champion.dataset(serves="slow" if state == "VerifyEndpoint" else "right"))
    champion.wait_for_state(execution, state)
    with client_of(champion) as client:
        champion.client("stepfunctions").stop_execution(executionArn=execution)
        champion.cloud.clear_faults()
        champion.wait_until_recovered(execution)
    assert champion.describe(execution)["status"] == "ABORTED"
    assert client.failures == []
    assert champion.endpoint()["EndpointConfigName"] == before[0]


def test_a_run_that_may_not_wait_fails_while_another_has_the_lock(champion, before):
    champion.cloud.inject("StartDelay", Name=f"{champion.name}-*-evaluate-1", Seconds=3600)
    first = champion.start(champion.dataset())
    champion.wait_for_state(first, "EvaluateModel")
    ended = champion.run(champion.dataset(), serving={"lock_wait_seconds": 0})
    assert (ended["status"], ended["error"]) == ("FAILED", "EndpointLocked"), ended["cause"]
    assert first in ended["cause"]
    champion.client("stepfunctions").stop_execution(executionArn=first)
    champion.wait_until_recovered(first)
    assert champion.endpoint()["EndpointConfigName"] == before[0]


def test_of_two_runs_at_once_the_second_waits_and_is_the_champion(champion):
    champion.cloud.inject("StartDelay", Name=f"{champion.name}-*-evaluate-1", Seconds=3600)
    first = champion.start(champion.dataset())
    champion.wait_for_state(first, "EvaluateModel")
    second = champion.start(champion.dataset())
    champion.wait_for_state(second, "WaitForLock")
    champion.cloud.clear_faults()
    assert champion.end_of(first)["status"] == "SUCCEEDED"
    assert champion.end_of(second)["status"] == "SUCCEEDED"
    pointer = champion.pointer()
    assert pointer["execution_arn"] == second
    assert champion.endpoint()["EndpointConfigName"] == pointer["endpoint_config"]
    assert champion.lock()["owner"] is None


def test_what_an_owner_of_the_lock_left_who_died_is_recovered_by_the_next_run(champion):
    died = champion.start(champion.dataset())
    champion.end_of(died)
    lock = {**champion.lock(), "owner": died, "left_by": None}
    champion.client("s3").put_object(
        Bucket=champion.outputs["Bucket"],
        Key=f"endpoints/{champion.endpoint_name}/lock.json",
        Body=json.dumps(lock).encode(),
    )
    execution = champion.start(champion.dataset())
    ended = champion.end_of(execution)
    assert ended["status"] == "SUCCEEDED", f"{ended.get('error')}: {ended.get('cause')}"
    assert "RecoverDeploy" in champion.states(execution)
    assert champion.lock()["owner"] is None
    assert len(champion.paid_jobs(execution)) == PAID_JOBS


def test_an_endpoint_that_was_deleted_behind_our_back_is_made_again(stack):
    ours = dataclasses.replace(stack, endpoint_name=f"{stack.name}-deleted")
    ended = ours.run(ours.dataset())
    assert ended["status"] == "SUCCEEDED", f"{ended.get('error')}: {ended.get('cause')}"
    ours.cloud.inject("StartDelay", Name=f"{ours.name}-*-evaluate-1", Seconds=3600)
    execution = ours.start(ours.dataset(mistakes=1))
    ours.wait_for_state(execution, "EvaluateModel")
    ours.wait_until_faulted()
    ours.client("sagemaker").delete_endpoint(EndpointName=ours.endpoint_name)
    ours.cloud.clear_faults()
    ended = ours.end_of(execution)
    assert ended["status"] == "SUCCEEDED", f"{ended.get('error')}: {ended.get('cause')}"
    assert ours.endpoint()["EndpointConfigName"] == ours.pointer()["endpoint_config"]
    assert ours.pointer()["execution_arn"] == execution


def test_a_server_that_never_gets_healthy_is_given_up_in_its_time(stack, client_of):
    ours = dataclasses.replace(stack, endpoint_name=f"{stack.name}-unhealthy")
    ended = ours.run(ours.dataset())
    assert ended["status"] == "SUCCEEDED", f"{ended.get('error')}: {ended.get('cause')}"
    serving = ours.endpoint()["EndpointConfigName"]
    with client_of(ours) as client:
        execution = ours.start(ours.dataset(serves="unhealthy"), serving={"startup_timeout_seconds": 60})
        ended = ours.end_of(execution)
    assert (ended["status"], ended["error"]) == ("FAILED", "EndpointRolledBack"), ended["cause"]
    assert client.failures == []
    assert ours.endpoint()["EndpointConfigName"] == serving
    ours.wait_until_recovered(execution)


def test_the_end_of_a_run_has_old_models_looked_for(champion, until):
    """None of a test's is older than a day: that the function ran is all that can be seen."""
    logs, group = champion.client("logs"), f"/aws/lambda/{champion.name}-retire-models"

    def told() -> bool:
        events = logs.filter_log_events(logGroupName=group)["events"]
        return any('"retired"' in event["message"] for event in events)

    until(told)
