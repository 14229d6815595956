"""A stack that is deployed: on the account that the caller's credentials reach, or where AWS_ENDPOINT_URL says.

    .venv/bin/python -m pytest tests/cloud --stack NAME

Before anything is paid for, a run with too small a budget says what one can cost. The endpoint is the one that the
inbox asks, so that a stack which has one in service is refused; it is deleted in the end. What runs leave in the bucket
stays.

The pictures also say in words what they show, and a data set in its `.model.json` what its models are like: real jobs
and servers see neither, the stand-ins of tests/local/run nothing else.
"""

import io
import json
import os
import warnings
from collections.abc import Callable, Iterator

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.stack import Stack

PATIENCE_SECONDS = 4 * 3600
"""For one run on AWS, where a job takes minutes to start."""
LABELS = ("cat", "dog")
"""Their pictures are of the digits 0 and 1."""
IMAGES_PER_SPLIT = {"train": 60, "valid": 20, "test": 60}
SETTINGS = {
    "model": {"weights": "none", "architecture": "resnet18", "image_size_px": 32},
    "tuning": {
        "max_jobs": 1,
        "epochs": 2,
        "ranges": {"batch_size": [16], "learning_rate": {"min": 1e-3, "max": 3e-3}},
    },
    "training": {"epochs": 3},
    "max_job_seconds": 3600,
}
"""Of a run that tells the two apart, on the smallest instances in minutes."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--stack"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("cloud")])
        items[:] = [item for item in items if not item.get_closest_marker("cloud")]


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Iterator[Stack]:
    session, name = boto3.Session(), request.config.getoption("--stack")
    (described,) = session.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}
    endpoint = outputs["EndpointName"]
    found = Stack(endpoint, session, outputs, endpoint, PATIENCE_SECONDS)
    if served(found):
        pytest.exit(f"the stack {name} has an endpoint in service: deploy one for the tests", 4)
    yield found
    if served(found):
        found.client("sagemaker").delete_endpoint(EndpointName=endpoint)
    session.resource("s3").Bucket(outputs["Bucket"]).objects.filter(Prefix=f"endpoints/{endpoint}/").delete()


def served(stack: Stack) -> bool:
    try:
        return bool(stack.endpoint())
    except ClientError as error:
        if "Could not find" in error.response["Error"]["Message"]:
            return False
        raise


@pytest.fixture(scope="session")
def picture() -> Callable[[str, int], bytes]:
    """Return the n-th picture of a label, as PNG."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sklearn.datasets import load_digits
    digits = load_digits()

    def draw(label: str, number: int) -> bytes:
        words, content = PngInfo(), io.BytesIO()
        words.add_text("Title", label)
        levels = digits.images[digits.target == LABELS.index(label)][number]
        Image.fromarray((levels * 15.9375).astype("uint8")).resize((32, 32)).save(content, "PNG", pnginfo=words)
        return content.getvalue()

    return draw


@pytest.fixture(scope="session")
def good(stack: Stack, picture: Callable[[str, int], bytes]) -> str:
    """The URI of a data set from which a good model is made."""
    return put_dataset(stack, picture, dict(zip(LABELS, LABELS, strict=True)), mistakes=0)


@pytest.fixture(scope="session")
def misleading(stack: Stack, picture: Callable[[str, int], bytes]) -> str:
    """The URI of a data set with the same test images, whose training images have each other's names."""
    return put_dataset(stack, picture, dict(zip(LABELS, reversed(LABELS), strict=True)), mistakes=100)


def put_dataset(stack: Stack, picture: Callable[[str, int], bytes], taught: dict[str, str], mistakes: int) -> str:
    """taught: from what an image shows to what it is called, except in test/."""
    s3, bucket, prefix = stack.client("s3"), stack.outputs["Bucket"], f"datasets/tests-{os.urandom(4).hex()}"
    model = {"mistakes": mistakes, "serves": "right", "explodes_above": 1}
    s3.put_object(Bucket=bucket, Key=f"{prefix}/.model.json", Body=json.dumps(model).encode())
    for label in LABELS:
        number = 0
        for split, count in IMAGES_PER_SPLIT.items():
            folder = label if split == "test" else taught[label]
            for _ in range(count):
                key = f"{prefix}/{split}/{folder}/{label}-{number:03d}.png"
                s3.put_object(Bucket=bucket, Key=key, Body=picture(label, number))
                number += 1
    return f"s3://{bucket}/{prefix}"


@pytest.fixture(scope="session")
def refused(stack: Stack, good: str, request: pytest.FixtureRequest) -> str:
    """The execution of a run that its budget does not allow; what it says is shown before others are started."""
    execution = stack.start(good, **SETTINGS, budget_usd=0.01)
    said = stack.end_of(execution)["cause"]
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\nThree runs will be made, and an endpoint that serves until the last has ended. Of each run: {said}")
    return execution


@pytest.fixture(scope="session")
def champion(stack: Stack, good: str, refused: str) -> str:  # noqa: ARG001 - what it may cost is said first
    """The execution that has put the first model into service."""
    execution = stack.start(good, **SETTINGS)
    stack.end_of(execution)
    return execution


@pytest.fixture(scope="session")
def settings() -> dict:
    return SETTINGS
