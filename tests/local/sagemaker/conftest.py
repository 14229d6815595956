"""The local SageMaker alone: moto stands in for S3 and CloudWatch Logs, the image `tiny` for every container."""

import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import moto
import pytest

from localcloud.containers.images import Images
from localcloud.containers.tiny import tiny_image
from localcloud.sagemaker.account import Ports
from localcloud.sagemaker.service import SageMaker
from localcloud.sagemaker.training_run import LOG_GROUP
from tests.local.sagemaker.serving import IMAGE, archive, variant
from tests.local.sagemaker.serving import ROLE as SERVING_ROLE
from tests.waiting import PATIENCE_SECONDS, wait_for

REGION = "us-east-1"
ROLE = "arn:aws:iam::123456789012:role/training"
BUCKET = "the-bucket"
# One for all tests: a session keeps the service models that it has read, which takes longer than most tests.
SESSION = boto3.Session("test", "test", region_name=REGION)


class Outside:
    """What the service finds outside: S3 and the logs of moto, and a list of the events that it published."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 22, tzinfo=UTC)
        self.events: list[tuple[str, dict, list[str]]] = []
        self.identities: set[tuple[str, str | None]] = set()
        self._lock = threading.Lock()
        self.s3 = self.client("s3", None)
        self.s3.create_bucket(Bucket=BUCKET)

    def ports(self) -> Ports:
        return Ports(self.client, lambda role: {"AWS_ROLE_FOR_TEST": role}, lambda *event: self.events.append(event))

    def client(self, service: str, role_arn: str | None) -> Any:
        with self._lock:
            self.identities.add((service, role_arn))
            return SESSION.client(service)

    def put(self, key: str, body: bytes | str) -> str:
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=body)
        return f"s3://{BUCKET}/{key}"

    def read(self, key: str) -> bytes:
        return self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def keys(self, prefix: str = "") -> list[str]:
        return [item["Key"] for item in self.s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])]

    def unpacked(self, key: str) -> dict[str, bytes]:
        with tarfile.open(fileobj=io.BytesIO(self.read(key))) as tar:
            return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]

    def lines(self) -> list[str]:
        """What all training jobs have logged so far."""
        logs = self.client("logs", None)
        if not logs.describe_log_groups(logGroupNamePrefix=LOG_GROUP)["logGroups"]:
            return []
        return [event["message"] for event in logs.filter_log_events(logGroupName=LOG_GROUP)["events"]]

    def log(self, job_name: str) -> list[str]:
        logs = self.client("logs", None)
        (stream,) = logs.describe_log_streams(logGroupName=LOG_GROUP, logStreamNamePrefix=f"{job_name}/")["logStreams"]
        events = logs.get_log_events(logGroupName=LOG_GROUP, logStreamName=stream["logStreamName"], startFromHead=True)
        return [event["message"] for event in events["events"]]


@pytest.fixture
def outside() -> Iterator[Outside]:
    with moto.mock_aws():
        yield Outside()


@pytest.fixture
def start_service(outside: Outside, tmp_path: Path) -> Iterator[Callable[[], SageMaker]]:
    """A function that starts the service on the same home each time it is called."""
    started: list[SageMaker] = []

    def start() -> SageMaker:
        images = Images({"tiny": tiny_image()})
        started.append(SageMaker(tmp_path / "home", images, outside.ports(), REGION, "123456789012"))
        return started[-1]

    yield start
    for service in started:
        service.close()


@pytest.fixture
def sagemaker(start_service: Callable[[], SageMaker]) -> SageMaker:
    return start_service()


@pytest.fixture
def job() -> Callable[..., dict[str, Any]]:
    """A function that makes the parameters of CreateTrainingJob for a script of the image `tiny`."""

    def parameters(name: str, script: str, **members: Any) -> dict[str, Any]:
        return {
            "TrainingJobName": name,
            "AlgorithmSpecification": {
                "TrainingImage": "123.dkr.ecr.x.amazonaws.com/tiny:1",
                "TrainingInputMode": "File",
            },
            "RoleArn": ROLE,
            "HyperParameters": {"script": json.dumps(script)},
            "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/jobs"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
            "StoppingCondition": {"MaxRuntimeInSeconds": 2 * PATIENCE_SECONDS},
            **members,
        }

    return parameters


@pytest.fixture
def run(sagemaker, job) -> Callable[..., dict[str, Any]]:
    """Create a job, wait for its end, return its description."""

    def run(name: str, script: str, **members: Any) -> dict[str, Any]:
        sagemaker.call("CreateTrainingJob", job(name, script, **members))
        sagemaker.training_jobs.wait(name, PATIENCE_SECONDS)
        return sagemaker.call("DescribeTrainingJob", {"TrainingJobName": name})

    return run


@pytest.fixture
def until_job(sagemaker) -> Callable[..., None]:
    """Wait until a job's description has the members given, or until a condition is true."""

    def until_job(name: str, condition: Callable[[dict], bool]) -> None:
        def described() -> dict[str, Any]:
            return sagemaker.call("DescribeTrainingJob", {"TrainingJobName": name})

        wait_for(lambda: condition(described()), described)

    return until_job


@pytest.fixture
def make_config(outside: Any) -> Callable[..., str]:
    """A function that makes a model and an endpoint configuration of the same name; switches are the server's."""

    def make(sagemaker: SageMaker, name: str, image: str = IMAGE, **switches: Any) -> str:
        url = outside.put(f"{name}/model.tar.gz", archive({"name": name, **switches}))
        sagemaker.call(
            "CreateModel",
            {
                "ModelName": name,
                "PrimaryContainer": {"Image": image, "ModelDataUrl": url, "Environment": {"FROM_MODEL": name}},
                "ExecutionRoleArn": SERVING_ROLE,
            },
        )
        sagemaker.call("CreateEndpointConfig", {"EndpointConfigName": name, "ProductionVariants": [variant(name)]})
        return name

    return make
