"""What a fault does to jobs of the service."""

import threading
import time

import pytest

from localcloud.sagemaker.errors import ServiceError
from tests.local.sagemaker.serving import settled
from tests.waiting import PATIENCE_SECONDS, wait_for


def refused(sagemaker, action: str, parameters: dict) -> str:
    with pytest.raises(ServiceError) as caught:
        sagemaker.call(action, parameters)
    return caught.value.code


def test_a_reply_is_lost_after_the_job_was_created(sagemaker, job):
    sagemaker.faults.add({"Fault": "LostReply", "Action": "CreateTrainingJob"})
    request = job("lost", "print(1)")
    assert refused(sagemaker, "CreateTrainingJob", request) == "InternalFailure"
    assert refused(sagemaker, "CreateTrainingJob", request) == "ResourceInUse"
    assert sagemaker.training_jobs.wait("lost", PATIENCE_SECONDS)["TrainingJobStatus"] == "Completed"


def test_a_throttled_request_changes_nothing(sagemaker, job):
    sagemaker.faults.add({"Fault": "Throttling", "Action": "CreateTrainingJob"})
    assert refused(sagemaker, "CreateTrainingJob", job("later", "print(1)")) == "ThrottlingException"
    assert sagemaker.call("ListTrainingJobs", {})["TrainingJobSummaries"] == []
    sagemaker.call("CreateTrainingJob", job("later", "print(1)"))
    assert sagemaker.training_jobs.wait("later", PATIENCE_SECONDS)["TrainingJobStatus"] == "Completed"


def test_no_capacity_fails_the_job_and_the_next_one_runs(sagemaker, job):
    sagemaker.faults.add({"Fault": "InsufficientCapacity"})
    for name in ("first", "second"):
        sagemaker.call("CreateTrainingJob", job(name, "print(1)"))
        sagemaker.training_jobs.wait(name, PATIENCE_SECONDS)
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
    described = sagemaker.training_jobs.wait("delayed", PATIENCE_SECONDS)
    assert described["TrainingJobStatus"] == "Stopped"
    assert "Training" not in [transition["Status"] for transition in described["SecondaryStatusTransitions"]]


def test_what_is_delayed_goes_on_when_the_faults_are_cleared(sagemaker, job, create_endpoint):
    sagemaker.faults.add({"Fault": "StartDelay", "Seconds": 3600, "Times": 2})
    sagemaker.call("CreateTrainingJob", job("delayed", "print(1)"))
    clearing = threading.Thread(
        target=lambda: (wait_for(lambda: not sagemaker.faults.list()), sagemaker.faults.clear())
    )
    clearing.start()
    assert create_endpoint("sheep")["EndpointStatus"] == "InService"
    assert sagemaker.training_jobs.wait("delayed", PATIENCE_SECONDS)["TrainingJobStatus"] == "Completed"
    clearing.join()


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
        return settled(sagemaker, name)

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


EPOCHS = """
import os, pathlib, signal, sys, time
checkpoints = pathlib.Path(os.environ['SM_CHECKPOINT_DIR'])
signal.signal(signal.SIGTERM, lambda *_: (checkpoints / 'noticed').write_text('yes') and sys.exit(0))
if (checkpoints / 'epoch-1').exists():
    print('resumed', *sorted(path.name for path in checkpoints.iterdir()))
    pathlib.Path(os.environ['SM_MODEL_DIR'], 'weights').write_text('whole')
    sys.exit(0)
pathlib.Path(os.environ['SM_MODEL_DIR'], 'half').write_text('lost with the instance')
(checkpoints / 'epoch-1').write_text('1')
print('waiting', flush=True)
time.sleep(600)
"""
SPOT = {
    "EnableManagedSpotTraining": True,
    "StoppingCondition": {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 3600},
    "CheckpointConfig": {"S3Uri": "s3://the-bucket/checkpoints"},
    "Environment": {"SM_CHECKPOINT_DIR": "/opt/ml/checkpoints"},
}


def transitions(described: dict) -> list[str]:
    return [transition["Status"] for transition in described["SecondaryStatusTransitions"]]


def test_an_interrupted_job_starts_again_from_its_checkpoints(sagemaker, job, outside):
    sagemaker.call("CreateTrainingJob", job("spot", EPOCHS, **SPOT))
    wait_for(lambda: outside.lines() == ["waiting"], outside.lines)
    sagemaker.inject({"Fault": "SpotInterruption", "Name": "spot", "GraceSeconds": 3600})
    described = sagemaker.training_jobs.wait("spot", PATIENCE_SECONDS)
    assert described["TrainingJobStatus"] == "Completed", described
    first, second = ["Starting", "Downloading", "Training"], ["Starting", "Downloading", "Training", "Uploading"]
    assert transitions(described) == [*first, "Interrupted", *second, "Completed"]
    assert outside.unpacked("jobs/spot/output/model.tar.gz") == {"weights": b"whole"}
    assert outside.lines() == ["waiting", "resumed epoch-1 noticed"]


def test_a_job_that_waits_too_long_for_new_instances_is_stopped(sagemaker, job):
    sagemaker.faults.add({"Fault": "SpotInterruption", "AfterSeconds": 0.1, "GraceSeconds": 5, "WaitSeconds": 3600})
    limits = {"MaxRuntimeInSeconds": 5, "MaxWaitTimeInSeconds": 5}
    sagemaker.call("CreateTrainingJob", job("waiting", EPOCHS, **{**SPOT, "StoppingCondition": limits}))
    described = sagemaker.training_jobs.wait("waiting", PATIENCE_SECONDS)
    assert (described["TrainingJobStatus"], described["SecondaryStatus"]) == ("Stopped", "MaxWaitTimeExceeded")
    assert "Interrupted" in transitions(described)


def test_only_managed_spot_training_is_interrupted(sagemaker, job):
    sagemaker.faults.add({"Fault": "SpotInterruption", "GraceSeconds": 1})
    script = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.02)"
    sagemaker.call("CreateTrainingJob", job("on-demand", script))
    with pytest.raises(ServiceError, match="not managed spot training"):
        sagemaker.inject({"Fault": "SpotInterruption", "Name": "on-demand"})
    go = sagemaker.training_jobs.folder("on-demand") / "algo-1" / "opt" / "ml" / "go"
    wait_for(go.parent.exists)
    time.sleep(1)  # in which the fault would befall the job
    go.touch()
    assert sagemaker.training_jobs.wait("on-demand", PATIENCE_SECONDS)["TrainingJobStatus"] == "Completed"
    with pytest.raises(ServiceError, match="it has ended"):
        sagemaker.inject({"Fault": "SpotInterruption", "Name": "on-demand"})
