"""Register the local SageMaker with MiniStack: control plane, runtime, IAM and events.

The state machine's integrations are in `sagemaker_tasks`, CloudFormation's types in `sagemaker_resources`.
"""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ministack import app
from ministack.core import iam_actions, router
from ministack.core.responses import request_scope
from ministack.services import eventbridge

from localcloud.cloud import ACCOUNT_ID, REGION, client_environment, session_at
from localcloud.containers.catalogue import known_images
from localcloud.ministack import sagemaker_resources, sagemaker_tasks
from localcloud.ministack.administration import LOST_REPLY_HEADER
from localcloud.ministack.sagemaker_authorisation import (
    INVOCATION_PATH,
    assume,
    authorise_references,
)
from localcloud.sagemaker.account import Ports
from localcloud.sagemaker.errors import ServiceError, unsupported
from localcloud.sagemaker.faults import LostReply
from localcloud.sagemaker.service import SageMaker
from localcloud.sagemaker.validation import serialise, validate

CONTROL_PLANE_PREFIX = "SageMaker."

Response = tuple[int, dict[str, str], bytes]


def sagemaker_on(home: Path, port: int) -> SageMaker:
    """A SageMaker whose jobs and endpoints reach the cloud on `port`."""
    clients = Clients(port)

    def role_environment(role_arn: str) -> dict[str, str]:
        return client_environment(port, *assume(role_arn))

    ports = Ports(client=clients.client, role_environment=role_environment, publish_event=publish_event)
    return SageMaker(home, known_images(), ports, REGION, ACCOUNT_ID)


def register(sagemaker: SageMaker) -> None:
    """Make MiniStack route, authorise and answer SageMaker's requests."""
    app.SERVICE_HANDLERS["sagemaker"] = Handler(sagemaker).handle
    router.SERVICE_PATTERNS["sagemaker"] = {
        "target_prefixes": [CONTROL_PLANE_PREFIX],
        "host_patterns": [r"api\.sagemaker\.", r"runtime\.sagemaker\."],
    }
    iam_actions.SERVICE_TO_IAM_NAMESPACE["sagemaker"] = "sagemaker"
    iam_actions._BOTOCORE_SERVICE_MAP["sagemaker"] = ["sagemaker-runtime"]
    sagemaker_tasks.register(sagemaker)
    sagemaker_resources.register(sagemaker)


class Handler:
    """Answers HTTP requests in threads of its own: an invocation of 60 seconds holds up nothing else."""

    def __init__(self, sagemaker: SageMaker):
        self._sagemaker = sagemaker
        self._control = ThreadPoolExecutor(max_workers=32, thread_name_prefix="sagemaker")
        self._runtime = ThreadPoolExecutor(max_workers=256, thread_name_prefix="sagemaker-runtime")

    async def handle(self, method: str, path: str, headers: dict, body: bytes, query_params: dict) -> Response:
        loop = asyncio.get_running_loop()
        target = headers.get("x-amz-target", "")
        if target.startswith(CONTROL_PLANE_PREFIX):
            action = target.removeprefix(CONTROL_PLANE_PREFIX)
            access_key = router.extract_access_key_id(headers, query_params)
            return await loop.run_in_executor(self._control, self._call, action, body, access_key)
        invocation = INVOCATION_PATH.match(path)
        if method == "POST" and invocation is not None:
            name = unquote(invocation["name"])
            return await loop.run_in_executor(self._runtime, self._invoke, name, headers, body)
        return runtime_error(unsupported(f"{method} {path}", "the runtime answers POST /endpoints/{name}/invocations"))

    def _call(self, action: str, body: bytes, access_key: str) -> Response:
        try:
            parameters = _parameters(body)
            authorise_references(access_key, action, validate(action, parameters))
            response = self._sagemaker.call(action, parameters)
        except LostReply as error:
            return lost(error, control_plane_error(error))
        except ServiceError as error:
            return control_plane_error(error)
        return 200, {"Content-Type": "application/x-amz-json-1.1"}, serialise(response)

    def _invoke(self, name: str, headers: dict, body: bytes) -> Response:
        try:
            invocation = self._sagemaker.invoke_endpoint(name, body, headers)
        except LostReply as error:
            return lost(error, runtime_error(error))
        except ServiceError as error:
            return runtime_error(error)
        return invocation.status, _verbatim(dict(invocation.headers)), invocation.body


def control_plane_error(error: ServiceError) -> Response:
    body = json.dumps({"__type": error.code, "message": error.message}).encode()
    return error.http_status, {"Content-Type": "application/x-amz-json-1.1"}, body


def runtime_error(error: ServiceError) -> Response:
    headers = {"content-type": "application/json", "x-amzn-errortype": error.code}
    return error.http_status, headers, json.dumps({"Message": error.message, **getattr(error, "members", {})}).encode()


def lost(error: LostReply, response: Response) -> Response:
    status, headers, body = response
    return status, {**headers, LOST_REPLY_HEADER: "true"} if error.closed else headers, body


def _verbatim(headers: dict[str, str]) -> dict[str, str]:
    """In lower case: MiniStack rewrites a header spelt "Content-Type" to the control plane's media type."""
    return {name.lower(): value for name, value in headers.items()}


def _parameters(body: bytes) -> dict[str, Any]:
    try:
        parameters = json.loads(body or b"{}")
    except ValueError as error:
        raise ServiceError("SerializationException", f"the request is not JSON: {error}") from error
    if not isinstance(parameters, dict):
        raise ServiceError("SerializationException", "the request is not a JSON object")
    return parameters


def publish_event(detail_type: str, detail: dict, resources: list[str]) -> None:
    entry = {
        "Source": "aws.sagemaker",
        "DetailType": detail_type,
        "Detail": json.dumps(detail),
        "Resources": resources,
    }
    with request_scope(ACCOUNT_ID, REGION):
        eventbridge._put_events({"Entries": [entry]}, allow_aws_source=True)


class Clients:
    """boto3 clients on the cloud's own endpoint, one for each service and identity; boto3's clients may be shared."""

    def __init__(self, port: int):
        self._session = session_at(f"http://127.0.0.1:{port}", "test", "test")
        self._clients: dict[tuple[str, str | None], Any] = {}
        self._lock = threading.Lock()  # boto3's sessions may not

    def client(self, service: str, role_arn: str | None) -> Any:
        with self._lock:
            if (service, role_arn) not in self._clients:
                credentials = {}
                if role_arn is not None:
                    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
                    credentials = dict(zip(names, assume(role_arn), strict=True))
                self._clients[service, role_arn] = self._session.client(service, **credentials)
            return self._clients[service, role_arn]
