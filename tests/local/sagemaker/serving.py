"""What tests of endpoints ask for: models whose server does as it is told, configurations of them, and answers."""

import io
import json
import tarfile
from pathlib import Path
from typing import Any

from localcloud.sagemaker.service import SageMaker
from tests.waiting import wait_for

ROLE = "arn:aws:iam::123456789012:role/serving"
IMAGE = "123.dkr.ecr.x.amazonaws.com/tiny:1"
SERVER = Path(__file__).with_name("switched_server.py")


def archive(switches: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(SERVER, "serve.py")
        content = json.dumps(switches).encode()
        member = tarfile.TarInfo("switches.json")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def variant(model: str, **members: Any) -> dict[str, Any]:
    return {
        "VariantName": "AllTraffic",
        "ModelName": model,
        "InitialInstanceCount": 1,
        "InstanceType": "ml.m5.large",
        **members,
    }


def create(sagemaker: SageMaker, config: str, name: str = "kelp") -> dict[str, Any]:
    sagemaker.call("CreateEndpoint", {"EndpointName": name, "EndpointConfigName": config})
    return settled(sagemaker, name)


def settled(sagemaker: SageMaker, name: str = "kelp") -> dict[str, Any]:
    """The endpoint's description once it is neither being created nor updated."""

    def endpoint() -> dict[str, Any]:
        return sagemaker.call("DescribeEndpoint", {"EndpointName": name})

    return wait_for(lambda: (now := endpoint())["EndpointStatus"] in ("InService", "Failed") and now, endpoint)


def ask(sagemaker: SageMaker, wish: str = "", name: str = "kelp", body: bytes = b"image") -> dict[str, Any]:
    answer = sagemaker.invoke_endpoint(name, body, {"x-amzn-sagemaker-custom-attributes": wish} if wish else {})
    return json.loads(answer.body)


def wait_until_told(outside: Any, *last: str) -> None:
    """Wait until the last events of endpoints tell these statuses: an event follows its status."""

    def told() -> list[str]:
        kinds = ((kind, detail) for kind, detail, _ in outside.events)
        return [detail["EndpointStatus"] for kind, detail in kinds if kind == "SageMaker Endpoint State Change"]

    wait_for(lambda: told()[-len(last) :] == list(last), told)
