"""Whatever becomes of a deploy, the champion answers: models that are no good, executions that end in the middle."""

import pytest


@pytest.fixture
def before(champion):
    """The champion's configuration and weights, which every test here must leave in service."""
    serving = champion.endpoint()["EndpointConfigName"], champion.answer()["model"]["weights_sha256"]
    yield serving
    champion.cloud.clear_faults()
    live = champion.endpoint()
    assert (live["EndpointStatus"], live["EndpointConfigName"]) == ("InService", serving[0])
    assert champion.answer()["model"]["weights_sha256"] == serving[1]
    assert champion.read(f"endpoints/{champion.name}/champion.json")["endpoint_config"] == serving[0]
    assert champion.lock()["owner"] is None


def test_no_request_fails_for_a_model_that_does_not_start(champion, before, client_of):
    with client_of(champion) as client:
        execution = champion.start(champion.dataset(serves="crash"))
        ended = champion.end_of(execution)
    assert (ended["status"], ended["error"]) == ("FAILED", "EndpointRolledBack")
    assert client.failures == []
    assert set(client.answers) == {before[1]}
    champion.wait_until_recovered(execution)


@pytest.mark.parametrize("serves", ["wrong", "errors"])
def test_a_model_that_answers_otherwise_than_evaluated_is_taken_back(champion, before, serves):
    execution = champion.start(champion.dataset(serves=serves))
    ended = champion.end_of(execution)
    assert (ended["status"], ended["error"]) == ("FAILED", "EndpointAnswersDiffer")
    assert champion.endpoint()["EndpointConfigName"] == before[0]
    champion.wait_until_recovered(execution)


def test_capacity_that_is_missing_leaves_the_champion(champion, before):
    champion.cloud.inject("InsufficientCapacity", Name=champion.name)
    execution = champion.start(champion.dataset())
    ended = champion.end_of(execution)
    assert (ended["status"], ended["error"]) == ("FAILED", "EndpointRolledBack")
    assert champion.endpoint()["EndpointConfigName"] == before[0]
    champion.wait_until_recovered(execution)


@pytest.mark.parametrize("state", ["LockEndpoint", "EvaluateModel", "WaitForEndpoint", "VerifyEndpoint"])
def test_an_execution_that_is_stopped_is_cleaned_up_after(champion, before, client_of, state):
    if state == "WaitForEndpoint":
        champion.cloud.inject("StartDelay", Name=champion.name, Seconds=3)
    execution = champion.start(champion.dataset(serves="slow" if state == "VerifyEndpoint" else "right"))
    champion.wait_for_state(execution, state)
    with client_of(champion) as client:
        champion.client("stepfunctions").stop_execution(executionArn=execution)
        champion.wait_until_recovered(execution)
    assert champion.describe(execution)["status"] == "ABORTED"
    assert client.failures == []
    assert champion.endpoint()["EndpointConfigName"] == before[0]


def test_a_run_that_may_not_wait_fails_while_another_has_the_lock(champion, before):
    champion.cloud.inject("StartDelay", Name=f"{champion.name}-*-evaluate-1", Seconds=20)
    first = champion.start(champion.dataset())
    champion.wait_for_state(first, "EvaluateModel")
    ended = champion.run(champion.dataset(), serving={"lock_wait_seconds": 0})
    assert (ended["status"], ended["error"]) == ("FAILED", "EndpointLocked"), ended["cause"]
    assert first in ended["cause"]
    champion.client("stepfunctions").stop_execution(executionArn=first)
    champion.wait_until_recovered(first)
    assert champion.endpoint()["EndpointConfigName"] == before[0]


def test_of_two_runs_at_once_the_second_waits_and_is_the_champion(champion):
    champion.cloud.inject("StartDelay", Name=f"{champion.name}-*-evaluate-1", Seconds=4)
    first = champion.start(champion.dataset())
    champion.wait_for_state(first, "EvaluateModel")
    second = champion.start(champion.dataset())
    assert champion.end_of(first)["status"] == "SUCCEEDED"
    assert champion.end_of(second)["status"] == "SUCCEEDED"
    assert "WaitForLock" in champion.states(second)
    pointer = champion.read(f"endpoints/{champion.name}/champion.json")
    assert pointer["execution_arn"] == second
    assert champion.endpoint()["EndpointConfigName"] == pointer["endpoint_config"]
    assert champion.lock()["owner"] is None
