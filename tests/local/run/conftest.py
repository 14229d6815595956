"""The product's own template, state machine and functions on a local cloud, with jobs and a server that take no time.

What the jobs run and the endpoint serves are stand-ins: `stand_ins/` takes the place of the job code that PlanRun
carries, so that a run takes seconds and a data set's `.model.json` says what its model is like.
"""

import hashlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from localcloud import LocalCloud, deploy

ROOT = Path(__file__).parents[3]
LABELS = ("cat", "dog")
REGISTRY = "123456789012.dkr.ecr.us-east-1.amazonaws.com"


REQUESTS: list[str] = []
"""What clients met while something went wrong, test by test: told when all tests have run."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if REQUESTS:
        terminalreporter.section("requests during faults")
        for line in REQUESTS:
            terminalreporter.write_line(line)


@dataclass
class Stack:
    """One deployed stack, and the endpoint that its runs deploy to: by default the one that bears its name."""

    name: str
    cloud: LocalCloud
    session: boto3.Session
    outputs: dict[str, str]
    endpoint_name: str

    def client(self, service: str) -> Any:
        return self.session.client(service)

    def dataset(self, mistakes: int = 0, serves: str = "right", images: int = 40, explodes: int = 0) -> str:
        """Put a data set whose model makes so many mistakes on as many test images; return its URI.

        explodes: how many of its final trainings explode.
        """
        prefix = f"datasets/{os.urandom(4).hex()}"
        s3, bucket = self.client("s3"), self.outputs["Bucket"]
        model = json.dumps({"mistakes": mistakes, "serves": serves, "explodes": explodes})
        s3.put_object(Bucket=bucket, Key=f"{prefix}/.model.json", Body=model.encode())
        for split, count in (("train", 4), ("valid", 4), ("test", images)):
            for number in range(count):
                label = LABELS[number % 2]
                s3.put_object(
                    Bucket=bucket,
                    Key=f"{prefix}/{split}/{label}/{number:03d}.png",
                    Body=f"{split} {label} {number}".encode(),
                )
        return f"s3://{bucket}/{prefix}"

    def start(self, dataset: str, **given: Any) -> str:
        document = {
            "dataset": dataset,
            "endpoint_name": self.endpoint_name,
            "model": {"weights": "none"},
            "tuning": {"max_jobs": 1, "epochs": 1, "ranges": {"batch_size": [2]}},
            "training": {"epochs": 1},
            "debugger": {"enabled": False},
            **given,
        }
        return self.client("stepfunctions").start_execution(
            stateMachineArn=self.outputs["StateMachineArn"], input=json.dumps(document)
        )["executionArn"]

    def end_of(self, execution: str, seconds: float = 120) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while (ended := self.describe(execution))["status"] == "RUNNING":
            assert time.monotonic() < deadline, self.states(execution)[-5:]
            time.sleep(0.1)
        return ended

    def run(self, dataset: str, **given: Any) -> dict[str, Any]:
        return self.end_of(self.start(dataset, **given))

    def describe(self, execution: str) -> dict[str, Any]:
        return self.client("stepfunctions").describe_execution(executionArn=execution)

    def states(self, execution: str) -> list[str]:
        """The states that an execution has entered."""
        pages = self.client("stepfunctions").get_paginator("get_execution_history").paginate(executionArn=execution)
        events = [event for page in pages for event in page["events"]]
        return [event["stateEnteredEventDetails"]["name"] for event in events if "stateEnteredEventDetails" in event]

    def wait_for_state(self, execution: str, state: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while state not in self.states(execution):
            assert time.monotonic() < deadline, self.states(execution)
            described = self.describe(execution)
            assert described["status"] == "RUNNING", f"{described.get('error')}: {described.get('cause')}"
            time.sleep(0.05)

    def read(self, key: str) -> dict[str, Any]:
        return json.loads(self.client("s3").get_object(Bucket=self.outputs["Bucket"], Key=key)["Body"].read())

    def report(self, execution: str) -> str:
        """The run's page."""
        key = f"runs/{hashlib.sha256(execution.encode()).hexdigest()[:12]}/report/index.html"
        return self.client("s3").get_object(Bucket=self.outputs["Bucket"], Key=key)["Body"].read().decode()

    def endpoint(self) -> dict[str, Any]:
        return self.client("sagemaker").describe_endpoint(EndpointName=self.endpoint_name)

    def answer(self) -> dict[str, Any]:
        """What the endpoint says to an image of a cat."""
        response = self.client("sagemaker-runtime").invoke_endpoint(
            EndpointName=self.endpoint_name, ContentType="image/png", Body=b"test cat 0"
        )
        return json.loads(response["Body"].read())

    def instances(self) -> int:
        return self.endpoint()["ProductionVariants"][0]["CurrentInstanceCount"]

    def capacity(self) -> tuple[int, int] | None:
        """The least and the most instances of auto scaling, None if it does not have the endpoint."""
        resource = f"endpoint/{self.endpoint_name}/variant/AllTraffic"
        scaling, namespace = self.client("application-autoscaling"), {"ServiceNamespace": "sagemaker"}
        targets = scaling.describe_scalable_targets(**namespace, ResourceIds=[resource])["ScalableTargets"]
        policies = scaling.describe_scaling_policies(**namespace, ResourceId=resource)["ScalingPolicies"]
        assert len(policies) == len(targets)
        return (targets[0]["MinCapacity"], targets[0]["MaxCapacity"]) if targets else None

    def lock(self) -> dict[str, Any]:
        return self.read(f"endpoints/{self.endpoint_name}/lock.json")

    def wait_until_recovered(self, execution: str, seconds: float = 60) -> None:
        """Wait until EventBridge's call has given back the lock of an execution that ended."""
        deadline = time.monotonic() + seconds
        while execution in (self.lock()["owner"], self.lock()["left_by"]):
            assert time.monotonic() < deadline, self.log("recover-deploy")
            time.sleep(0.1)

    def log(self, function: str) -> list[str]:
        """The last that a function said."""
        logs, group = self.client("logs"), f"/aws/lambda/{self.name}-{function}"
        return [event["message"] for event in logs.filter_log_events(logGroupName=group)["events"]][-10:]

    def package(self, execution: str) -> dict[str, Any]:
        """What RegisterModel left of an execution's model."""
        sagemaker = self.client("sagemaker")
        (group,) = sagemaker.list_model_package_groups(NameContains=f"{self.name}-")["ModelPackageGroupSummaryList"]
        pages = sagemaker.get_paginator("list_model_packages").paginate(
            ModelPackageGroupName=group["ModelPackageGroupName"]
        )
        arns = [package["ModelPackageArn"] for page in pages for package in page["ModelPackageSummaryList"]]
        packages = [sagemaker.describe_model_package(ModelPackageName=arn) for arn in arns]
        return next(one for one in packages if one["MetadataProperties"]["GeneratedBy"] == execution)

    def pointer(self) -> dict[str, Any]:
        """The champion's pointer."""
        return self.read(f"endpoints/{self.endpoint_name}/champion.json")

    def run_id(self, execution: str) -> str:
        return hashlib.sha256(execution.encode()).hexdigest()[:12]

    def paid_jobs(self, execution: str) -> list[str]:
        """The names of all training jobs, trials included, and tuning jobs that an execution has paid for."""
        sagemaker, run_id = self.client("sagemaker"), self.run_id(execution)
        trained = sagemaker.get_paginator("list_training_jobs").paginate(NameContains=run_id)
        tuned = sagemaker.get_paginator("list_hyper_parameter_tuning_jobs").paginate(NameContains=run_id)
        names = [job["TrainingJobName"] for page in trained for job in page["TrainingJobSummaries"]]
        return names + [
            job["HyperParameterTuningJobName"] for page in tuned for job in page["HyperParameterTuningJobSummaries"]
        ]


@dataclass
class Client:
    """Asks an endpoint 20 times a second until it is told to stop."""

    stack: Stack
    test: str
    answers: list[str] = field(default_factory=list)
    """The weights that answered, in order."""
    failures: list[str] = field(default_factory=list)

    def __enter__(self) -> "Client":
        self._ended = threading.Event()
        self._runtime = self.stack.session.client("sagemaker-runtime", config=Config(retries={"total_max_attempts": 1}))
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        asked = len(self.failures) + len(self.answers)
        REQUESTS.append(f"{self.test}: {len(self.failures)} of {asked} requests failed")

    def _ask(self) -> None:
        while not self._ended.wait(0.05):
            try:
                answer = self._runtime.invoke_endpoint(
                    EndpointName=self.stack.endpoint_name, ContentType="image/png", Body=b"test cat 0"
                )
                self.answers.append(json.loads(answer["Body"].read())["model"]["weights_sha256"])
            except ClientError as error:
                self.failures.append(str(error))


@pytest.fixture(scope="session")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the product's template and all that it deploys, with the stand-ins in the job code's place."""
    folder = tmp_path_factory.mktemp("product")
    shutil.copy(ROOT / "template.yaml", folder)
    for name in ("contracts", "functions", "statemachine", "training_code"):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    # The one link of a function into the job code, which is not copied.
    layout = folder / "functions" / "plan_run" / "layout.py"
    layout.unlink()
    shutil.copy(ROOT / "training_code" / "layout.py", layout)
    job_code = folder / "functions" / "plan_run" / "job_code"
    for link in job_code.iterdir():
        link.unlink()
    shutil.copytree(Path(__file__).with_name("stand_ins"), job_code, dirs_exist_ok=True)
    return folder / "template.yaml"


@pytest.fixture(scope="session")
def make_stack(cloud: LocalCloud, session: boto3.Session, product: Path) -> Callable[[str], Stack]:
    def make(name: str) -> Stack:
        parameters = {
            "NamePrefix": name,
            "TrainingImageUri": f"{REGISTRY}/pytorch:stand-in",
            "ServingImageUri": f"{REGISTRY}/tiny:stand-in",
        }
        return Stack(name, cloud, session, deploy(session, product, name, parameters), name)

    return make


@pytest.fixture(scope="session")
def stack(make_stack: Callable[[str], Stack]) -> Stack:
    return make_stack(f"t{os.urandom(3).hex()}")


@pytest.fixture(scope="session")
def champion(stack: Stack) -> Stack:
    """The stack with its default endpoint, which a first run has put into service."""
    ended = stack.run(stack.dataset(mistakes=4))
    assert ended["status"] == "SUCCEEDED", f"{ended.get('error')}: {ended.get('cause')}"
    return stack


@pytest.fixture
def client_of(request: pytest.FixtureRequest) -> Callable[[Stack], Client]:
    return lambda stack: Client(stack, request.node.name)


@pytest.fixture
def faulty(stack: Stack) -> Iterator[Stack]:
    """The stack, with none of the faults that a test before it, or this one, has left."""
    stack.cloud.clear_faults()
    yield stack
    stack.cloud.clear_faults()
