"""Where the conformance tests run: on a local cloud of their own, or with --aws on the account of the caller.

On AWS it costs what a few minutes of instances cost, and needs a bucket, a role that SageMaker may assume, and the two
images: --aws-bucket, --aws-role, --aws-training-image (PyTorch with the training toolkit), --aws-serving-image (Ray
Serve).
"""

import io
import json
import os
import sys
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from localcloud import LocalCloud
from localcloud.cloud import ACCOUNT_ID, REGION
from tests.conformance.requests import Target
from tests.local.conftest import create_role, free_port

SOURCE = Path(__file__).with_name("source")
REGISTRY = f"{ACCOUNT_ID}.dkr.ecr.{REGION}.amazonaws.com"
NEEDED = ("--aws-bucket", "--aws-role", "--aws-training-image", "--aws-serving-image")


@pytest.fixture(scope="session")
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The members of Target that do not depend on the test."""
    if request.config.getoption("--aws"):
        values = {option: request.config.getoption(option) for option in NEEDED}
        if lacking := [option for option, value in values.items() if not value]:
            raise pytest.UsageError(f"--aws needs {', '.join(lacking)}")
        bucket, role, training_image, serving_image = values.values()
        yield {
            "session": boto3.Session(),
            "environment": {},
            "bucket": bucket,
            "role": role,
            "training_image": training_image,
            "serving_image": serving_image,
        }
        return
    cloud = LocalCloud(tmp_path_factory.mktemp("cloud"))
    cloud.start(free_port())
    session, bucket = cloud.session(), "conformance"
    session.client("s3").create_bucket(Bucket=bucket)
    yield {
        "session": session,
        "environment": cloud.environment | {"HOME": str(tmp_path_factory.mktemp("home")), "NO_PROXY": "127.0.0.1"},
        "bucket": bucket,
        "role": create_role(session, "sagemaker.amazonaws.com"),
        "training_image": f"{REGISTRY}/pytorch:2.14-cpu-amzn2023-sagemaker",
        "serving_image": f"{REGISTRY}/tiny:1",
    }
    cloud.stop()


@pytest.fixture
def target(place: dict[str, Any]) -> Target:
    """A target with names, data and code of the test's own."""
    name = f"conf-{uuid.uuid4().hex[:8]}"
    s3, root = place["session"].client("s3"), f"s3://{place['bucket']}/{name}"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.add(SOURCE / "train.py", "train.py")
    for key, body in (("data/a.txt", b"a"), ("data/b.txt", b"b"), ("sourcedir.tar.gz", archive.getvalue())):
        s3.put_object(Bucket=place["bucket"], Key=f"{name}/{key}", Body=body)
    return Target(
        **place,
        aws_cli=str(Path(sys.executable).with_name("aws")),
        name=name,
        instance_type="ml.m5.large",
        source=SOURCE,
        source_archive=f"{root}/sourcedir.tar.gz",
        dataset=f"{root}/data/",
        output=f"{root}/jobs",
    )


@pytest.fixture
def environment_of(tmp_path: Path) -> Callable[[Target], dict[str, str]]:
    """The whole environment for a client that is a process; the SDKs tell nobody that they are used."""
    settings = tmp_path / "sagemaker.yaml"
    modules = {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}
    settings.write_text(json.dumps({"SchemaVersion": "1.0", "SageMaker": modules}))

    def environment(target: Target) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
        own = {"SAGEMAKER_SUPPRESS_V2_WARNING": "1", "SAGEMAKER_USER_CONFIG_OVERRIDE": str(settings)}
        return {**inherited, **target.environment, **own}

    return environment
