"""Roles inside the local cloud: temporary credentials for whoever assumes one, and what IAM says about an action."""

import functools
import hashlib
import json
import re
from collections.abc import Callable
from typing import Any

from ministack import app
from ministack.core import iam_actions, iam_evaluator
from ministack.core.iam_actions import identity_denial_message
from ministack.services import iam, sts

from localcloud.cloud import ACCOUNT_ID, REGION
from localcloud.ministack.repairs import Repair


class RoleCannotBeAssumed(Exception):
    """The role does not exist, or its trust policy does not name the service."""


def assume_role(role_arn: str, service_principal: str, session_name: str) -> tuple[str, str, str]:
    """Return access key, secret key and session token of a session that lasts as long as the cloud.

    Raises RoleCannotBeAssumed. The same role and session name give the same credentials, so a restarted cloud
    recognises the processes of its own kind, and sessions do not pile up.
    """
    name = role_arn.rsplit("/", 1)[-1]
    role = iam._roles.get_scoped(ACCOUNT_ID, None, name)
    if role is None:
        raise RoleCannotBeAssumed(f"the role {role_arn} does not exist")
    if not trusts(role["AssumeRolePolicyDocument"], service_principal):
        raise RoleCannotBeAssumed(f"the trust policy of {role_arn} does not let {service_principal} assume it")
    digest = hashlib.sha256(f"{role_arn} {session_name}".encode()).hexdigest()
    access_key = f"ASIA{digest[:16].upper()}"
    secret_key = hashlib.sha256(f"secret {digest}".encode()).hexdigest()
    token = hashlib.sha256(f"token {digest}".encode()).hexdigest()
    sts.register_session(
        access_key,
        {
            "Arn": f"arn:aws:sts::{ACCOUNT_ID}:assumed-role/{name}/{session_name}",
            "UserId": f"{role.get('RoleId', name)}:{session_name}",
            "SecretAccessKey": secret_key,
            "SessionToken": token,
        },
    )
    return access_key, secret_key, token


def trusts(policy: str | dict[str, Any], service_principal: str) -> bool:
    """Whether a trust policy lets a service assume the role. Its conditions are not evaluated: they compare the account
    and the resource, of which there is one."""
    statements = (json.loads(policy) if isinstance(policy, str) else policy)["Statement"]
    return any(
        statement["Effect"] == "Allow"
        and "sts:AssumeRole" in _listed(statement.get("Action", []))
        and service_principal in _listed((statement.get("Principal") or {}).get("Service", []))
        for statement in _listed(statements)
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def refusal(access_key: str, action: str, resource_arn: str, context: dict[str, Any] | None = None) -> str | None:
    """Return IAM's message if the holder of `access_key` may not do `action`, or None if it may."""
    service = action.split(":", 1)[0]
    result = iam_evaluator.enforce(access_key, action, service, REGION, resource_arn, context)
    if result is None:
        return None
    if isinstance(result, iam_evaluator.AuthError):
        return result.message
    return identity_denial_message(action, result.principal_arn, resource_arn, result.decision == "Deny")


def _pin_request_origin(original: Callable[[str, bool], None]) -> Callable[[str, bool], None]:
    """Requests pass a policy that denies what came without TLS (aws:SecureTransport): nothing leaves the machine, and
    clients that are given an endpoint's URL on it use plain HTTP."""

    @functools.wraps(original)
    def pin_request_origin(address: str, _secure: bool) -> None:
        original(address, True)

    return pin_request_origin


def _extract_iam_action(original: Callable[..., str | None]) -> Callable[..., str | None]:
    """Several messages in one request need what one message needs: IAM knows no sqs:SendMessageBatch and its like.

    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-api-permissions-reference.html"""

    @functools.wraps(original)
    def extract_iam_action(service: str, *request: Any, **named: Any) -> str | None:
        action = original(service, *request, **named)
        return action.removesuffix("Batch") if service == "sqs" and action else action

    return extract_iam_action


def _fnmatch_compile(original: Callable[[str, bool], re.Pattern[str]]) -> Callable[[str, bool], re.Pattern[str]]:
    """A key in S3 may hold line breaks, and a policy's * stands for them too."""

    @functools.cache
    @functools.wraps(original)
    def fnmatch_compile(pattern: str, ignore_case: bool) -> re.Pattern[str]:
        compiled = original(pattern, ignore_case)
        return re.compile(compiled.pattern, compiled.flags | re.DOTALL)

    return fnmatch_compile


REPAIRS = [
    Repair(
        "every policy that asks for TLS denies all requests",
        app.__name__,
        "pin_request_origin",
        "de819c1bd9ac",
        _pin_request_origin,
    ),
    Repair(
        "batches of messages need actions that IAM does not know",
        iam_actions.__name__,
        "extract_iam_action",
        "ec476b92d969",
        _extract_iam_action,
    ),
    Repair(
        "no policy allows anything about a key with a line break",
        iam_evaluator.__name__,
        "_fnmatch_compile",
        "c95d90f11ae7",
        _fnmatch_compile,
    ),
]
