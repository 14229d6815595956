"""A deployed stack: its outputs, and clients of the account in which it stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import boto3
import botocore.exceptions
from botocore.config import Config

from kelpie.errors import CloudUnavailable

CLIENT_SETTINGS = Config(connect_timeout=10, read_timeout=60, max_pool_connections=32)


@dataclass(frozen=True)
class Stack:
    session: boto3.Session
    name: str
    status: str
    outputs: dict[str, str]
    _clients: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, session: boto3.Session, name: str) -> Stack:
        """Look the stack up. Raises CloudUnavailable if it is not there, is not whole, or nothing answers."""
        cloudformation = session.client("cloudformation", config=CLIENT_SETTINGS)
        try:
            description = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        except cloudformation.exceptions.ClientError as error:
            if error.response["Error"]["Code"] != "ValidationError":
                raise
            raise CloudUnavailable(f"there is no stack {name!r}: run `kelpie down` and `kelpie up`") from error
        except botocore.exceptions.HTTPClientError as error:
            raise CloudUnavailable(f"the cloud does not answer ({error}): run `kelpie down` and `kelpie up`") from error
        outputs = {output["OutputKey"]: output["OutputValue"] for output in description.get("Outputs", [])}
        return cls(session, name, description["StackStatus"], outputs)

    def client(self, service: str) -> Any:
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
