"""No reply, no second bill: whatever SageMaker does not answer, a run adopts what it made, and pays for it once."""

import dataclasses

import pytest

PAID_JOBS = 5
"""Of a run with one trial: preparation, tuning job, trial, training, evaluation."""
CREATIONS = (
    "CreateTrainingJob",
    "CreateHyperParameterTuningJob",
    "CreateModelPackage",
    "CreateModel",
    "CreateEndpointConfig",
    "CreateEndpoint",
)


THROTTLED = (
    *CREATIONS[:-1],
    "UpdateEndpoint",
    "ListTrainingJobsForHyperParameterTuningJob",
    "ListEndpoints",
    "DescribeEndpoint",
    "InvokeEndpoint",
)
"""Every call of a run that updates an endpoint, but those by which .sync follows a job: Step Functions makes them."""


@pytest.fixture(scope="module")
def stack(stack):
    """An endpoint of its own, which is not there yet."""
    return dataclasses.replace(stack, endpoint_name=f"{stack.name}-lost")


def test_a_run_that_gets_no_reply_to_any_creation_pays_once_and_serves(faulty):
    for step, reply in (("prepare", "Error"), ("train", "Closed"), ("evaluate", "Closed")):
        faulty.cloud.inject("LostReply", Action="CreateTrainingJob", Name=f"{faulty.name}-*-{step}-1", Reply=reply)
    for action in CREATIONS[1:]:
        faulty.cloud.inject("LostReply", Action=action)
    execution = faulty.start(faulty.dataset())
    ended = faulty.end_of(execution)
    assert ended["status"] == "SUCCEEDED", f"{ended.get('error')}: {ended.get('cause')}"
    assert faulty.cloud.faults() == []
    assert len(faulty.paid_jobs(execution)) == PAID_JOBS
    assert faulty.answer()["predictions"][0]["label"] == "cat"
    assert {"IsAdoptedJobOver", "IsAdoptedTuningOver", "IsModelOurs", "IsEndpointConfigOurs", "IsDeployOurs"} <= set(
        faulty.states(execution)
    )


def test_an_update_whose_reply_is_lost_is_followed_to_its_end(faulty, until):
    assert faulty.endpoint()["EndpointStatus"] == "InService"
    former = faulty.endpoint()["EndpointConfigName"]
    faulty.cloud.inject("LostReply", Action="UpdateEndpoint", Name=faulty.endpoint_name)
    execution = faulty.start(faulty.dataset(mistakes=1), serving={"data_capture_percent": 100})
    ended = faulty.end_of(execution)
    assert ended["status"] == "SUCCEEDED", f"{ended.get('error')}: {ended.get('cause')}"
    assert faulty.endpoint()["EndpointConfigName"] != former
    assert len(faulty.paid_jobs(execution)) == PAID_JOBS
    faulty.answer()
    captured = {"Bucket": faulty.outputs["Bucket"], "Prefix": f"capture/{faulty.endpoint_name}/AllTraffic/"}
    until(lambda: faulty.client("s3").list_objects_v2(**captured)["KeyCount"])


def test_throttling_of_every_call_makes_no_second_job(faulty):
    for action in THROTTLED:
        faulty.cloud.inject("Throttling", Action=action)
    execution = faulty.start(faulty.dataset(mistakes=2))
    ended = faulty.end_of(execution)
    assert ended["status"] == "SUCCEEDED", f"{ended.get('error')}: {ended.get('cause')}"
    assert faulty.cloud.faults() == []
    assert len(faulty.paid_jobs(execution)) == PAID_JOBS
