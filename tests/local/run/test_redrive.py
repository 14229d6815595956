"""A run that ended in the middle and is redriven goes on, and pays for no job that it has paid for."""

import dataclasses

import pytest

PAID_JOBS = 5
"""Of a run with one trial: preparation, tuning job, trial, training, evaluation."""
ENDED = {
    "PrepareDataset": "ABORTED",
    "TuneHyperparameters": "TIMED_OUT",
    "ChooseHyperparameters": "FAILED",
    "TrainModel": "ABORTED",
    "ReviewDebugger": "TIMED_OUT",
}


@pytest.fixture
def ours(faulty):
    """An endpoint of its own."""
    return dataclasses.replace(faulty, endpoint_name=f"{faulty.name}-redriven")


def redrive(stack, execution):
    stack.client("stepfunctions").redrive_execution(executionArn=execution)


def test_a_run_that_ended_after_each_of_its_jobs_adopts_them_all(ours):
    for state, status in ENDED.items():
        ours.cloud.inject("ExecutionEnds", State=state, Status=status)
    execution = ours.start(ours.dataset())
    for state, status in ENDED.items():
        assert ours.end_of(execution)["status"] == status
        assert ours.states(execution)[-1] == state
        redrive(ours, execution)
    ended = ours.end_of(execution)
    assert ended["status"] == "SUCCEEDED", f"{ended.get('error')}: {ended.get('cause')}"
    assert ended["redriveCount"] == len(ENDED)
    assert len(ours.paid_jobs(execution)) == PAID_JOBS
    assert ours.pointer()["execution_arn"] == execution


def test_a_job_that_was_stopped_with_its_run_is_the_one_that_is_paid_again(ours):
    ours.cloud.inject("StartDelay", Name=f"{ours.name}-*-train-1", Seconds=3600)
    execution = ours.start(ours.dataset())
    ours.wait_for_state(execution, "TrainModel")
    ours.client("stepfunctions").stop_execution(executionArn=execution)
    redrive(ours, execution)
    ended = ours.end_of(execution)
    assert ended["status"] == "SUCCEEDED", f"{ended.get('error')}: {ended.get('cause')}"
    again = [name.rpartition("-")[2] for name in ours.paid_jobs(execution) if "-train-" in name]
    assert sorted(again) == ["1", "2"]
    assert len(ours.paid_jobs(execution)) == PAID_JOBS + 1


def test_a_run_that_lost_its_lock_is_not_deployed_and_pays_nothing_more(ours):
    ours.cloud.inject("ExecutionEnds", State="EvaluateModel", Status="ABORTED")
    execution = ours.start(ours.dataset(mistakes=1))
    ours.end_of(execution)
    ours.wait_until_recovered(execution)
    redrive(ours, execution)
    assert ours.end_of(execution)["error"] == "LockLost"
    ours.wait_until_recovered(execution)
    assert len(ours.paid_jobs(execution)) == PAID_JOBS
    assert ours.endpoint()["EndpointConfigName"] == ours.pointer()["endpoint_config"]
    assert ours.pointer()["execution_arn"] != execution


def test_a_run_that_was_stopped_once_its_champion_had_moved_ends_well(faulty):
    """On a first deploy, whose way back would delete the endpoint that serves."""
    first = dataclasses.replace(faulty, endpoint_name=f"{faulty.name}-verified")
    first.cloud.inject("ExecutionEnds", State="VerifyEndpoint", Status="ABORTED")
    execution = first.start(first.dataset())
    assert first.end_of(execution)["status"] == "ABORTED"
    first.wait_until_recovered(execution)
    redrive(first, execution)
    first.end_of(execution)
    first.assert_deployed(execution)
    assert len(first.paid_jobs(execution)) == PAID_JOBS
