"""The product's own template, state machine and functions on a local cloud, with jobs and a server that take no time.

What the jobs run and the endpoint serves are stand-ins: `stand_ins/` takes the place of the job code that PlanRun
carries, so that a run takes seconds and a data set's `.model.json` says what its model is like.
"""

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from localcloud import LocalCloud, deploy
from tests.stack import Stack
from tests.waiting import PATIENCE_SECONDS, wait_for

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
class LocalStack(Stack):
    """A stack on a local cloud, with the stand-ins; `dataset` says what its models are like."""

    cloud: LocalCloud

    def dataset(self, mistakes: int = 0, serves: str = "right", images: int = 40, explodes_above: float = 1) -> str:
        """Put a data set whose model makes so many mistakes on as many test images; return its URI.

        explodes_above: the highest learning rate at which its fine-tuning does not explode.
        """
        prefix = f"datasets/{os.urandom(4).hex()}"
        s3, bucket = self.client("s3"), self.outputs["Bucket"]
        model = json.dumps({"mistakes": mistakes, "serves": serves, "explodes_above": explodes_above})
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

    def wait_for_state(self, execution: str, state: str) -> None:
        def entered() -> bool:
            described = self.describe(execution)
            there = state in self.states(execution)
            assert there or described["status"] == "RUNNING", f"{described.get('error')}: {described.get('cause')}"
            return there

        wait_for(entered, lambda: self.states(execution))

    def wait_until_faulted(self) -> None:
        """Wait until every fault has happened, as a start that is delayed has begun to wait then."""
        wait_for(lambda: not self.cloud.faults(), self.cloud.faults)

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


@dataclass
class Client:
    """Asks an endpoint 20 times a second until it is told to stop."""

    stack: LocalStack
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
    # A function's links into the job code, which is not copied.
    for name in ("layout.py", "saved_collections.py"):
        (folder / "functions" / "plan_run" / name).unlink()
        shutil.copy(ROOT / "training_code" / name, folder / "functions" / "plan_run" / name)
    job_code = folder / "functions" / "plan_run" / "job_code"
    for link in job_code.iterdir():
        link.unlink()
    shutil.copytree(Path(__file__).with_name("stand_ins"), job_code, dirs_exist_ok=True)
    return folder / "template.yaml"


@pytest.fixture(scope="session")
def make_stack(cloud: LocalCloud, session: boto3.Session, product: Path) -> Callable[[str], LocalStack]:
    def make(name: str) -> LocalStack:
        parameters = {
            "NamePrefix": name,
            "TrainingImageUri": f"{REGISTRY}/pytorch:stand-in",
            "ServingImageUri": f"{REGISTRY}/tiny:stand-in",
        }
        return LocalStack(name, session, deploy(session, product, name, parameters), name, 3 * PATIENCE_SECONDS, cloud)

    return make


@pytest.fixture(scope="session")
def stack(make_stack: Callable[[str], LocalStack]) -> LocalStack:
    return make_stack(f"t{os.urandom(3).hex()}")


@pytest.fixture(scope="session")
def champion(stack: LocalStack) -> LocalStack:
    """The stack with its default endpoint, which a first run has put into service."""
    ended = stack.run(stack.dataset(mistakes=4))
    assert ended["status"] == "SUCCEEDED", f"{ended.get('error')}: {ended.get('cause')}"
    return stack


@pytest.fixture
def client_of(request: pytest.FixtureRequest) -> Callable[[LocalStack], Client]:
    return lambda stack: Client(stack, request.node.name)


@pytest.fixture
def faulty(stack: LocalStack) -> Iterator[LocalStack]:
    """The stack, with none of the faults that a test before it, or this one, has left."""
    stack.cloud.clear_faults()
    yield stack
    stack.cloud.clear_faults()
