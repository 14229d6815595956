"""Faults of a running cloud, set through its handle, as clients and state machines meet them."""

import json
import os

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from localcloud import FaultRefused, LocalCloud
from localcloud.cloud import ACCOUNT_ID, REGION, session_at

IMAGE = f"{ACCOUNT_ID}.dkr.ecr.{REGION}.amazonaws.com/tiny:latest"


@pytest.fixture
def faulty(cloud: LocalCloud):
    """The shared cloud; what a test leaves of its faults is removed."""
    yield cloud
    cloud.clear_faults()


@pytest.fixture
def once(cloud: LocalCloud):
    """A client that tries once."""
    session = session_at(cloud.environment["AWS_ENDPOINT_URL"], "test", "test")
    return session.client("sagemaker", config=Config(retries={"total_max_attempts": 1}, proxies={}))


@pytest.fixture
def request_of(session, role_for):
    bucket = f"faults-{os.urandom(4).hex()}"
    session.client("s3").create_bucket(Bucket=bucket)
    role = role_for("sagemaker.amazonaws.com")

    def request(name: str) -> dict:
        return {
            "TrainingJobName": name,
            "AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"},
            "RoleArn": role,
            "HyperParameters": {"script": "print(1)"},
            "OutputDataConfig": {"S3OutputPath": f"s3://{bucket}/jobs"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        }

    return request


def test_a_fault_is_set_told_and_cleared(faulty):
    fault = faulty.inject("StartDelay", Name="nobodys-*", Seconds=1, Times=2)
    assert fault in faulty.faults()
    faulty.clear_faults()
    assert faulty.faults() == []
    with pytest.raises(FaultRefused, match="Earthquake"):
        faulty.inject("Earthquake")


def test_a_client_that_tries_again_does_not_see_throttling(faulty, session, once):
    faulty.inject("Throttling", Action="ListModels")
    with pytest.raises(ClientError) as refused:
        once.list_models()
    assert refused.value.response["Error"]["Code"] == "ThrottlingException"
    faulty.inject("Throttling", Action="ListModels")
    answer = session.client("sagemaker").list_models()
    assert answer["ResponseMetadata"]["RetryAttempts"] == 1


def test_the_connection_ends_without_a_reply_and_the_job_is_there(faulty, once, request_of):
    name = f"job-{os.urandom(4).hex()}"
    faulty.inject("LostReply", Action="CreateTrainingJob", Name=name, Reply="Closed")
    with pytest.raises(ConnectionClosedError):
        once.create_training_job(**request_of(name))
    assert once.describe_training_job(TrainingJobName=name)["TrainingJobName"] == name


def test_a_state_machine_waits_for_its_job_whatever_befalls_describe(faulty, machines, request_of):
    name = f"job-{os.urandom(4).hex()}"
    for action in ("CreateTrainingJob", "DescribeTrainingJob"):
        faulty.inject("Throttling", Action=action, Name=name)
    state = {
        "Type": "Task",
        "Resource": "arn:aws:states:::sagemaker:createTrainingJob.sync",
        "Arguments": request_of(name),
        "Retry": [{"ErrorEquals": ["SageMaker.AmazonSageMakerException"], "IntervalSeconds": 1, "MaxAttempts": 1}],
        "End": True,
    }
    ended = machines.run({"QueryLanguage": "JSONata", "StartAt": "Train", "States": {"Train": state}})
    assert ended["status"] == "SUCCEEDED", ended
    assert json.loads(ended["output"])["TrainingJobStatus"] == "Completed"


@pytest.mark.parametrize("resource", ["sagemaker:createTrainingJob.sync", "aws-sdk:sagemaker:createTrainingJob"])
def test_a_state_machine_that_gets_no_reply_asks_again_and_finds_its_job(faulty, machines, request_of, resource):
    name = f"job-{os.urandom(4).hex()}"
    faulty.inject("LostReply", Action="CreateTrainingJob", Name=name, Reply="Closed")
    state = {
        "Type": "Task",
        "Resource": f"arn:aws:states:::{resource}",
        "Arguments": request_of(name),
        "Retry": [{"ErrorEquals": ["SageMaker.SdkClientException"], "IntervalSeconds": 1, "MaxAttempts": 1}],
        "Catch": [{"ErrorEquals": ["SageMaker.ResourceInUseException"], "Next": "Adopt"}],
        "End": True,
    }
    states = {"Train": state, "Adopt": {"Type": "Pass", "Output": "adopted", "End": True}}
    ended = machines.run({"QueryLanguage": "JSONata", "StartAt": "Train", "States": states})
    assert (ended["status"], ended.get("output")) == ("SUCCEEDED", '"adopted"'), ended
