"""Faults: which are accepted, whom they befall, and how often."""

import pytest

from localcloud.sagemaker.errors import ServiceError
from localcloud.sagemaker.faults import FIELDS, Faults, LostReply

JOB = {"TrainingJobName": "run-1", "ResourceConfig": {"InstanceType": "ml.c5.xlarge", "InstanceCount": 2}}


def code(call, *arguments) -> str:
    with pytest.raises(ServiceError) as caught:
        call(*arguments)
    return caught.value.code


@pytest.fixture
def faults() -> Faults:
    return Faults()


def test_nothing_goes_wrong_unasked(faults):
    faults.before("CreateTrainingJob", JOB)
    faults.after("CreateTrainingJob", JOB)
    assert not [kind for kind in FIELDS if faults.take(kind, "run-1", lambda _: True)]
    assert faults.list() == []


def test_the_next_three_requests_of_an_action(faults):
    faults.add({"Fault": "Throttling", "Action": "CreateTrainingJob", "Times": 3})
    faults.before("DescribeTrainingJob", JOB)
    assert [code(faults.before, "CreateTrainingJob", JOB) for _ in range(2)] == ["ThrottlingException"] * 2
    (left,) = faults.list()
    assert (left["Times"], left["Happened"]) == (1, 2)
    assert code(faults.before, "CreateTrainingJob", JOB) == "ThrottlingException"
    faults.before("CreateTrainingJob", JOB)
    assert faults.list() == []


def test_only_what_exceeds_the_rate_is_throttled(faults):
    faults.add({"Fault": "Throttling", "PerSecond": 2})
    faults.before("CreateTrainingJob", JOB)
    faults.before("ListModels", {})
    assert code(faults.before, "CreateTrainingJob", JOB) == "ThrottlingException"


def test_a_resource_limit_names_the_instance_type(faults):
    faults.add({"Fault": "ResourceLimitExceeded", "Times": None})
    faults.before("DescribeTrainingJob", JOB)
    for _ in range(2):
        with pytest.raises(
            ServiceError, match=r"'ml\.c5\.xlarge for training job usage'.*delta of 2 Instances"
        ) as caught:
            faults.before("CreateTrainingJob", JOB)
        assert caught.value.code == "ResourceLimitExceeded"
    faults.clear()
    faults.before("CreateTrainingJob", JOB)


@pytest.mark.parametrize(("reply", "closed"), [("Error", False), ("Closed", True)])
def test_a_lost_reply(faults, reply, closed):
    faults.add({"Fault": "LostReply", "Action": "InvokeEndpoint", "Name": "sheep-*", "Reply": reply})
    faults.after("InvokeEndpoint", {"EndpointName": "dogs"})
    with pytest.raises(LostReply) as caught:
        faults.after("InvokeEndpoint", {"EndpointName": "sheep-1"})
    assert caught.value.closed is closed


def test_a_function_whose_reply_is_lost_is_named(faults):
    faults.add({"Fault": "LostReply", "Action": "InvokeEndpoint"})
    assert not faults.loses_reply_of("dogs-verify")
    faults.add({"Fault": "LostReply", "Action": "Invoke", "Name": "sheep-*"})
    assert [faults.loses_reply_of(name) for name in ("dogs-verify", "sheep-verify", "sheep-verify")] == [
        False,
        True,
        False,
    ]


def test_a_fault_by_name(faults):
    faults.add({"Fault": "StartDelay", "Name": "run-*", "Seconds": 7})
    assert faults.take("StartDelay", "other") is None
    assert faults.take("StartDelay", "run-1").options == {"Seconds": 7}
    assert faults.take("StartDelay", "run-1") is None


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([], "JSON object"),
        ({}, "Fault is None; it must be one of Throttling"),
        ({"Fault": "Earthquake"}, "Earthquake"),
        ({"Fault": "StartDelay", "Action": "CreateModel"}, "Action is not known for the fault StartDelay"),
        ({"Fault": "StartDelay", "Seconds": -1}, "Seconds is -1"),
        ({"Fault": "StartDelay", "Seconds": "5"}, "Seconds is '5'"),
        ({"Fault": "StartDelay", "Times": 0}, "Times is 0"),
        ({"Fault": "StartDelay", "Name": 3}, "Name is 3"),
        ({"Fault": "LostReply", "Reply": "Never"}, "Reply is 'Never'"),
        ({"Fault": "Throttling", "Action": 1}, "Action is 1"),
        ({"Fault": "Throttling", "Action": "CreateSheep"}, "CreateSheep"),
        ({"Fault": "Throttling", "Action": "Invoke"}, "Invoke"),
        ({"Fault": "ResourceLimitExceeded", "Action": "ListModels"}, "never answers ResourceLimitExceeded"),
    ],
)
def test_what_is_no_fault_is_refused_by_key(faults, document, said):
    with pytest.raises(ServiceError, match=said):
        faults.add(document)
    assert faults.list() == []
