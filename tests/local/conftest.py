"""Local clouds for tests: one that many tests share, and MiniStack as upstream ships it, to show its defects."""

import functools
import io
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest

from localcloud import LocalCloud
from localcloud.cloud import server_environment, session_at
from tests.waiting import PATIENCE_SECONDS, wait_for


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    """A running local cloud that tests share: each uses names of its own."""
    started = LocalCloud(tmp_path_factory.mktemp("cloud"))
    started.start(free_port())
    yield started
    started.stop()


@pytest.fixture(scope="session")
def session(cloud: LocalCloud) -> boto3.Session:
    return cloud.session()


@pytest.fixture(scope="session")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[boto3.Session]:
    """A session on MiniStack without our repairs."""
    port, home = free_port(), tmp_path_factory.mktemp("upstream")
    environment = server_environment(os.environ) | {
        "AUTH": "true",
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "TMPDIR": str(home),
        "STATE_DIR": str(home / "state"),
        "S3_DATA_DIR": str(home / "s3"),
        "DOCKER_HOST": f"unix://{home}/no-docker",
    }
    with (home / "log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-m", "ministack"], env=environment, stdout=log, stderr=log)
    try:
        wait_for(lambda: answers(port))
        yield session_at(f"http://127.0.0.1:{port}", "test", "test")
    finally:
        server.terminate()
        server.wait(PATIENCE_SECONDS)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture(scope="session")
def machines_on() -> "type[Machines]":
    return Machines


@pytest.fixture
def machines(session: boto3.Session) -> "Machines":
    return Machines(session)


@pytest.fixture
def upstream_machines(upstream: boto3.Session) -> "Machines":
    return Machines(upstream)


@pytest.fixture
def functions(session: boto3.Session) -> "Functions":
    return Functions(session)


@pytest.fixture
def upstream_functions(upstream: boto3.Session) -> "Functions":
    return Functions(upstream)


@pytest.fixture(scope="session")
def role_for(session: boto3.Session) -> Callable[..., str]:
    """(service principal, statements or None for everything) to the ARN of a new role."""
    return functools.partial(create_role, session)


@pytest.fixture
def packed() -> Callable[..., bytes]:
    """Names and contents of files to a zip archive."""
    return archive


@pytest.fixture(scope="session")
def until() -> Callable[..., Any]:
    return wait_for


@dataclass
class Machines:
    """Runs state machines under a role that may do everything, unless statements are given."""

    session: boto3.Session

    def start(self, definition: dict, execution_input: Any = None, statements: list[dict] | None = None) -> str:
        states = self.session.client("stepfunctions")
        machine = states.create_state_machine(
            name=unique(),
            definition=json.dumps(definition),
            roleArn=create_role(self.session, "states.amazonaws.com", statements),
        )["stateMachineArn"]
        text = json.dumps({} if execution_input is None else execution_input)
        return states.start_execution(stateMachineArn=machine, input=text)["executionArn"]

    def end_of(self, execution: str) -> dict[str, Any]:
        states = self.session.client("stepfunctions")

        def ended() -> dict[str, Any] | None:
            description = states.describe_execution(executionArn=execution)
            return None if description["status"] == "RUNNING" else description

        return wait_for(ended)

    def run(self, definition: dict, execution_input: Any = None, **options: Any) -> dict[str, Any]:
        return self.end_of(self.start(definition, execution_input, **options))


@dataclass
class Functions:
    """Creates functions of one file, `app.py`, and invokes them."""

    session: boto3.Session

    def create(self, source: str, statements: list[dict] | None = None, **options: Any) -> str:
        name = unique()
        self.session.client("lambda").create_function(
            FunctionName=name,
            Role=create_role(self.session, "lambda.amazonaws.com", statements),
            **{
                "Runtime": "python3.13",
                "Handler": "app.handler",
                "Code": {"ZipFile": archive({"app.py": source})},
                "Timeout": 60,
                **options,
            },
        )
        return name

    def invoke(self, name: str, event: Any = None) -> Any:
        answer = self.session.client("lambda").invoke(FunctionName=name, Payload=json.dumps(event))
        return json.loads(answer["Payload"].read())


def create_role(session: boto3.Session, service: str, statements: list[dict] | None = None) -> str:
    allowed = [{"Effect": "Allow", "Action": "*", "Resource": "*"}] if statements is None else statements
    trusted = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    iam, name = session.client("iam"), unique()
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Statement": [trusted]}))["Role"]
    document = json.dumps({"Version": "2012-10-17", "Statement": allowed})
    if allowed:
        iam.put_role_policy(RoleName=name, PolicyName="allowed", PolicyDocument=document)
    return role["Arn"]


def archive(files: dict[str, str | bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        for name, body in files.items():
            packed.writestr(name, body)
    return content.getvalue()


def unique() -> str:
    return f"t{uuid.uuid4().hex[:12]}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/_ministack/health", timeout=1) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False
