"""A deployed stack: its outputs, clients of the account in which it stands, and what it means if they get no answer."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import boto3
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnection

from kelpie.errors import CloudUnavailable

CLIENT_SETTINGS = Config(connect_timeout=10, read_timeout=60, max_pool_connections=256)  # bench-endpoint's most clients
AWS_ERRORS = (BotoCoreError, Boto3Error, ClientError)
"""Of a client, of a copy by boto3, and what a service answers."""
NO_ANSWER = (NoConnection, HTTPClientError)
"""No connection came about; or one broke, or stayed silent. Neither is the other's base."""
THROTTLED = ("RequestLimitExceeded", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequestsException")
REQUIRED_OUTPUTS = {"Bucket", "StateMachineArn", "EndpointName"}


@dataclass(frozen=True)
class Stack:
    session: boto3.Session
    name: str
    status: str
    outputs: dict[str, str]
    is_local: bool = False
    """On a local cloud, which is near, and this user's alone."""
    _clients: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False, compare=False)

    @classmethod
    def read(cls, session: boto3.Session, name: str, remedy: str, is_local: bool = False) -> Stack:
        """Look the stack up. Raises CloudUnavailable, ending in `remedy`, if it is not there or nobody tells of it."""
        try:
            cloudformation = session.client("cloudformation", config=CLIENT_SETTINGS)
            description = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        except AWS_ERRORS as error:
            if isinstance(error, ClientError) and error.response["Error"]["Code"] == "ValidationError":
                raise CloudUnavailable(f"there is no stack {name!r}: {remedy}") from error
            raise CloudUnavailable(f"{what_is_wrong(error)}: {remedy}") from error
        outputs = {output["OutputKey"]: output["OutputValue"] for output in description.get("Outputs", [])}
        if missing := sorted(REQUIRED_OUTPUTS - outputs.keys()):
            raise CloudUnavailable(f"the stack {name!r} ({description['StackStatus']}) lacks {missing[0]}: {remedy}")
        return cls(session, name, description["StackStatus"], outputs, is_local)

    def client(self, service: str) -> Any:
        with self._lock:  # clients are safe to share between threads, but not to make in several
            if service not in self._clients:
                self._clients[service] = self.session.client(service, config=CLIENT_SETTINGS)
            return self._clients[service]

    @property
    def poll_seconds(self) -> float:
        """How often whoever follows a run asks: an account's APIs are throttled, and others ask them too."""
        return 1.0 if self.is_local else 5.0

    @property
    def bucket(self) -> str:
        return self.outputs["Bucket"]

    @property
    def state_machine_arn(self) -> str:
        return self.outputs["StateMachineArn"]

    @property
    def endpoint_name(self) -> str:
        return self.outputs["EndpointName"]

    @property
    def endpoint_url(self) -> str:
        """Where its account is asked: AWS's own address, or the one that AWS_ENDPOINT_URL names."""
        return self.client("cloudformation").meta.endpoint_url


def deployed(name: str) -> Stack:
    """Return the stack that ordinary AWS credentials reach: environment, profile or role. Raises CloudUnavailable."""
    remedy = "see the account and the region with `aws sts get-caller-identity`, or deploy with `sam deploy`"
    try:
        session = boto3.Session()
    except BotoCoreError as error:
        raise CloudUnavailable(f"{what_is_wrong(error)}: {remedy}") from error
    return Stack.read(session, name, remedy)


def what_is_wrong(error: Exception) -> str:
    """Say what one of AWS_ERRORS means to who asked: nothing answers, what answers refuses, or it was not asked."""
    if isinstance(error, NO_ANSWER):
        return f"the cloud does not answer ({error})"
    if isinstance(error, (ClientError, Boto3Error)):
        return f"the cloud refuses ({error})"
    return f"AWS cannot be asked ({error})"


def passes(error: Exception) -> bool:
    """Whether one of AWS_ERRORS may be gone a minute later: no answer, throttling, or trouble of the service's own."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return error.response["Error"]["Code"] in THROTTLED or status == 429 or status >= 500
    return isinstance(error, NO_ANSWER)
