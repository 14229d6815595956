"""A deployed stack: its outputs, and clients of the account in which it stands."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import boto3
import botocore.exceptions
from botocore.config import Config

from kelpie.errors import CloudUnavailable

CLIENT_SETTINGS = Config(connect_timeout=10, read_timeout=60, max_pool_connections=256)  # bench-endpoint's most clients
REQUIRED_OUTPUTS = {"Bucket", "StateMachineArn", "EndpointName"}


@dataclass(frozen=True)
class Stack:
    session: boto3.Session
    name: str
    status: str
    outputs: dict[str, str]
    _clients: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    _lock: Any = field(default_factory=threading.Lock, repr=False, compare=False)

    @classmethod
    def read(cls, session: boto3.Session, name: str, remedy: str) -> Stack:
        """Look the stack up. Raises CloudUnavailable, ending in `remedy`, if it is not there or nothing answers."""
        try:
            cloudformation = session.client("cloudformation", config=CLIENT_SETTINGS)
            description = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        except botocore.exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "ValidationError":
                raise
            raise CloudUnavailable(f"there is no stack {name!r}: {remedy}") from error
        except botocore.exceptions.HTTPClientError as error:
            raise CloudUnavailable(f"the cloud does not answer ({error}): {remedy}") from error
        except (
            botocore.exceptions.NoRegionError,
            botocore.exceptions.NoCredentialsError,
            botocore.exceptions.TokenRetrievalError,
            botocore.exceptions.SSOTokenLoadError,
            botocore.exceptions.UnauthorizedSSOTokenError,
        ) as error:
            raise CloudUnavailable(f"AWS cannot be asked ({error}): {remedy}") from error
        outputs = {output["OutputKey"]: output["OutputValue"] for output in description.get("Outputs", [])}
        if missing := sorted(REQUIRED_OUTPUTS - outputs.keys()):
            raise CloudUnavailable(f"the stack {name!r} ({description['StackStatus']}) lacks {missing[0]}: {remedy}")
        return cls(session, name, description["StackStatus"], outputs)

    def client(self, service: str) -> Any:
        with self._lock:  # clients are safe to share between threads, but not to make in several
            if service not in self._clients:
                self._clients[service] = self.session.client(service, config=CLIENT_SETTINGS)
            return self._clients[service]

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
    except botocore.exceptions.ProfileNotFound as error:
        raise CloudUnavailable(f"AWS cannot be asked ({error}): {remedy}") from error
    return Stack.read(session, name, remedy)
