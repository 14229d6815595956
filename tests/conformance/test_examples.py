"""The files of examples/, each run as it is by the Python that has what it needs, against an endpoint that answers."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from localcloud.containers.environments import Environments
from tests.waiting import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "tests" / "local" / "run" / "stand_ins" / "inference_code" / "serve.py"
MODEL = {"serves": "right", "weights_sha256": "0" * 64, "mistaken": [], "samples": []}


def python_with(client: str) -> str:
    if client == "boto3":
        return sys.executable
    requirements = ROOT / f"requirements-{client.replace('_', '-')}.txt"
    return str(Environments().alone(client.replace("_", "-"), requirements, print).python)


@pytest.fixture
def endpoint(place):
    """The name of an endpoint whose server answers with the word that an image bears in its bytes."""
    name, archive = "examples", io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.add(SERVER, "serve.py")
        member = tarfile.TarInfo("model.json")
        member.size = len(json.dumps(MODEL))
        tar.addfile(member, io.BytesIO(json.dumps(MODEL).encode()))
    place["session"].client("s3").put_object(
        Bucket=place["bucket"], Key=f"{name}/model.tar.gz", Body=archive.getvalue()
    )
    sagemaker = place["session"].client("sagemaker")
    container = {"Image": place["serving_image"], "ModelDataUrl": f"s3://{place['bucket']}/{name}/model.tar.gz"}
    sagemaker.create_model(ModelName=name, PrimaryContainer=container, ExecutionRoleArn=place["role"])
    variant = {"VariantName": "AllTraffic", "ModelName": name, "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    sagemaker.get_waiter("endpoint_in_service").wait(
        EndpointName=name, WaiterConfig={"Delay": 1, "MaxAttempts": PATIENCE_SECONDS}
    )
    yield name
    sagemaker.delete_endpoint(EndpointName=name)
    sagemaker.delete_endpoint_config(EndpointConfigName=name)
    sagemaker.delete_model(ModelName=name)


@pytest.mark.slow
def test_every_example_prints_what_its_images_are(endpoint, target, environment_of, tmp_path):
    (tmp_path / "a.png").write_bytes(b"test cat 1")
    (tmp_path / "b.JPG").write_bytes(b"test dog 2")
    examples = sorted((ROOT / "examples").glob("classify_*.py"))
    assert [example.stem for example in examples] == ["classify_boto3", "classify_sdk_v2", "classify_sdk_v3"]
    for example in examples:
        done = subprocess.run(
            [python_with(example.stem.removeprefix("classify_")), example, endpoint, "a.png", "b.JPG"],
            cwd=tmp_path,
            env=environment_of(target),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{example.name}: {done.stdout}\n{done.stderr}"
        assert done.stdout.splitlines()[-2:] == ["a.png: cat 0.9000", "b.JPG: dog 0.9000"], example.name
