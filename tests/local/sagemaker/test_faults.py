"""What a fault does to jobs of the service."""

import time

import pytest

from localcloud.sagemaker.errors import ServiceError


def refused(sagemaker, action: str, parameters: dict) -> str:
    with pytest.raises(ServiceError) as caught:
        sagemaker.call(action, parameters)
    return caught.value.code


def test_a_reply_is_lost_after_the_job_was_created(sagemaker, job):
    sagemaker.faults.add({"Fault": "LostReply", "Action": "CreateTrainingJob"})
    request = job("lost", "print(1)")
    assert refused(sagemaker, "CreateTrainingJob", request) == "InternalFailure"
    assert refused(sagemaker, "CreateTrainingJob", request) == "ResourceInUse"
    assert sagemaker.training_jobs.wait("lost", 30)["TrainingJobStatus"] == "Completed"


def test_a_throttled_request_changes_nothing(sagemaker, job):
    sagemaker.faults.add({"Fault": "Throttling", "Action": "CreateTrainingJob"})
    assert refused(sagemaker, "CreateTrainingJob", job("later", "print(1)")) == "ThrottlingException"
    assert sagemaker.call("ListTrainingJobs", {})["TrainingJobSummaries"] == []
    sagemaker.call("CreateTrainingJob", job("later", "print(1)"))
    assert sagemaker.training_jobs.wait("later", 30)["TrainingJobStatus"] == "Completed"


def test_no_capacity_fails_the_job_and_the_next_one_runs(sagemaker, job):
    sagemaker.faults.add({"Fault": "InsufficientCapacity"})
    for name in ("first", "second"):
        sagemaker.call("CreateTrainingJob", job(name, "print(1)"))
        sagemaker.training_jobs.wait(name, 30)
    first, second = (sagemaker.training_jobs.wait(name) for name in ("first", "second"))
    assert first["TrainingJobStatus"] == "Failed"
    assert first["FailureReason"].startswith("CapacityError: Unable to provision requested ML compute capacity")
    assert "TrainingStartTime" not in first
    assert second["TrainingJobStatus"] == "Completed"


def test_a_delayed_job_can_be_stopped_before_it_starts(sagemaker, job):
    sagemaker.faults.add({"Fault": "StartDelay", "Seconds": 60})
    sagemaker.call("CreateTrainingJob", job("delayed", "print(1)"))
    described = sagemaker.call("DescribeTrainingJob", {"TrainingJobName": "delayed"})
    assert described["SecondaryStatus"] == "Starting"
    sagemaker.call("StopTrainingJob", {"TrainingJobName": "delayed"})
    described = sagemaker.training_jobs.wait("delayed", 20)
    assert described["TrainingJobStatus"] == "Stopped"
    assert "Training" not in [transition["Status"] for transition in described["SecondaryStatusTransitions"]]


@pytest.fixture
def create_endpoint(sagemaker):
    """Create an endpoint of the image's own server and return its description once it is settled."""

    def create(name: str) -> dict:
        model = {"Image": "tiny:1"}
        role = "arn:aws:iam::123456789012:role/serving"
        sagemaker.call("CreateModel", {"ModelName": name, "PrimaryContainer": model, "ExecutionRoleArn": role})
        variant = {
            "VariantName": "all",
            "ModelName": name,
            "InitialInstanceCount": 1,
            "InstanceType": "ml.m5.large",
            "ContainerStartupHealthCheckTimeoutInSeconds": 60,
        }
        sagemaker.call("CreateEndpointConfig", {"EndpointConfigName": name, "ProductionVariants": [variant]})
        sagemaker.call("CreateEndpoint", {"EndpointName": name, "EndpointConfigName": name})
        deadline = time.monotonic() + 30
        while (described := sagemaker.call("DescribeEndpoint", {"EndpointName": name}))["EndpointStatus"] == "Creating":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return described

    return create


def test_no_capacity_fails_the_endpoint(sagemaker, create_endpoint):
    sagemaker.faults.add({"Fault": "InsufficientCapacity", "Name": "sheep"})
    described = create_endpoint("sheep")
    assert described["EndpointStatus"] == "Failed"
    assert "InsufficientInstanceCapacity" in described["FailureReason"]


def test_an_endpoint_is_in_service_once_its_health_checks_pass(sagemaker, create_endpoint):
    sagemaker.faults.add({"Fault": "FailingHealth", "Times": 2})
    sagemaker.faults.add({"Fault": "SlowHealth", "Seconds": 0.2})
    assert create_endpoint("sheep")["EndpointStatus"] == "InService"
    assert sagemaker.faults.list() == []


def test_throttled_and_lost_invocations(sagemaker, create_endpoint):
    create_endpoint("sheep")
    sagemaker.faults.add({"Fault": "Throttling", "Action": "InvokeEndpoint"})
    sagemaker.faults.add({"Fault": "LostReply", "Action": "InvokeEndpoint"})
    codes = []
    for _ in range(2):
        with pytest.raises(ServiceError) as caught:
            sagemaker.invoke_endpoint("sheep", b"", {})
        codes.append(caught.value.code)
    assert codes == ["ThrottlingException", "InternalFailure"]
    assert sagemaker.invoke_endpoint("sheep", b"", {}).status == 200
