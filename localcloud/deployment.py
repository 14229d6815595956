"""Deploy a SAM template to the local cloud as `sam build && sam deploy` would: package, change set, events, outputs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localcloud.packaging import S3Object, package

if TYPE_CHECKING:
    import boto3

CAPABILITIES = ["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"]
POLL_SECONDS = 0.1
LONGEST_SILENCE_SECONDS = 180.0
"""Between two events of a stack. Resources take seconds; one whose function fails at once, as on a full disk, tells of
itself after an hour."""
NO_CHANGES = ("The submitted information didn't contain changes", "No updates are to be performed")
"""CloudFormation tells an empty change set by its StatusReason only."""


class DeploymentFailed(Exception):
    """`resource` is the logical id of what failed first, or the stack's name; `reason` is CloudFormation's."""

    def __init__(self, stack_name: str, resource: str, reason: str):
        super().__init__(f"the deployment of {stack_name} failed at {resource}: {reason}")
        self.stack_name, self.resource, self.reason = stack_name, resource, reason


def deploy(
    session: boto3.Session,
    template: Path,
    stack_name: str,
    parameters: dict[str, str],
    on_progress: Callable[[str], None] = lambda _line: None,
) -> dict[str, str]:
    """Create the stack, or update it, and return its outputs when it is complete. `on_progress` gets lines to show.

    A parameter that is not given keeps its value on an update, as with `sam deploy`. A stack whose creation failed is
    replaced. Raises PackagingFailed, or DeploymentFailed naming the resource and the reason.
    """
    from botocore.exceptions import ClientError

    cloudformation = session.client("cloudformation")
    packaged = package(Path(template), _uploader(session), on_progress)
    stack = _Stack(cloudformation, stack_name)
    if stack.status() in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED", "CREATE_FAILED"):
        on_progress(f"Deleting {stack_name}, whose creation failed")
        cloudformation.delete_stack(StackName=stack_name)
        stack.wait(lambda _event: None)
    is_new = stack.status() in (None, "REVIEW_IN_PROGRESS")
    given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
    kept = [] if is_new else sorted(stack.parameters() & set(packaged.get("Parameters", {})) - set(parameters))
    seen = stack.event_ids()
    try:
        change_set = cloudformation.create_change_set(
            StackName=stack_name,
            ChangeSetName=f"local-{uuid.uuid4()}",
            ChangeSetType="CREATE" if is_new else "UPDATE",
            TemplateURL=_upload_template(session, packaged),
            Parameters=given + [{"ParameterKey": key, "UsePreviousValue": True} for key in kept],
            Capabilities=CAPABILITIES,
        )["Id"]
    except ClientError as error:
        raise DeploymentFailed(stack_name, stack_name, error.response["Error"]["Message"]) from error
    reason = _wait_for_change_set(cloudformation, change_set)
    if reason is not None:
        cloudformation.delete_change_set(ChangeSetName=change_set)
        if not reason.startswith(NO_CHANGES):
            raise DeploymentFailed(stack_name, stack_name, reason)
        on_progress(f"{stack_name} is up to date")
        return stack.outputs()
    cloudformation.execute_change_set(ChangeSetName=change_set)
    failures: list[_Event] = []

    def report(event: _Event) -> None:
        on_progress(event.line())
        if event.status.endswith("_FAILED") and event.reason:
            failures.append(event)

    status = stack.wait(report, seen)
    if status not in ("CREATE_COMPLETE", "UPDATE_COMPLETE"):
        first = failures[0] if failures else None
        raise DeploymentFailed(
            stack_name, first.resource if first else stack_name, first.reason if first else f"it ended {status}"
        )
    return stack.outputs()


@dataclass(frozen=True)
class _Event:
    resource: str
    kind: str
    status: str
    reason: str

    def line(self) -> str:
        return f"{self.status} {self.kind} {self.resource}{f': {self.reason}' if self.reason else ''}"


class _Stack:
    def __init__(self, cloudformation: Any, name: str):
        self._cloudformation, self._name = cloudformation, name

    def status(self) -> str | None:
        """None if there is no such stack."""
        described = self._describe()
        return described["StackStatus"] if described else None

    def parameters(self) -> set[str]:
        return {parameter["ParameterKey"] for parameter in (self._describe() or {}).get("Parameters", [])}

    def outputs(self) -> dict[str, str]:
        outputs = (self._describe() or {}).get("Outputs", [])
        return {output["OutputKey"]: output["OutputValue"] for output in outputs}

    def event_ids(self) -> set[str]:
        return {event["EventId"] for event in self._events()}

    def wait(self, report: Callable[[_Event], None], seen: set[str] | None = None) -> str | None:
        """Report each new event, oldest first, until nothing is in progress. Return the stack's status.

        Raises DeploymentFailed if nothing happens for LONGEST_SILENCE_SECONDS.
        """
        seen, last = set(seen or ()), time.monotonic()
        while True:
            status = self.status()
            for event in reversed(self._events()):
                if event["EventId"] not in seen:
                    seen.add(event["EventId"])
                    last = time.monotonic()
                    reason = event.get("ResourceStatusReason", "")
                    resource, kind = event["LogicalResourceId"], event.get("ResourceType", "")
                    report(_Event(resource, kind, event["ResourceStatus"], reason))
            if status is None or not status.endswith("_IN_PROGRESS"):
                return status
            if time.monotonic() - last > LONGEST_SILENCE_SECONDS:
                reason = f"nothing has happened for {LONGEST_SILENCE_SECONDS:g} seconds while it is {status}"
                raise DeploymentFailed(self._name, self._name, f"{reason}: cloud.log in its state's folder says why")
            time.sleep(POLL_SECONDS)

    def _describe(self) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError

        try:
            stacks = self._cloudformation.describe_stacks(StackName=self._name)["Stacks"]
        except ClientError as error:
            if error.response["Error"]["Code"] == "ValidationError":
                return None  # CloudFormation's answer for a stack that does not exist
            raise
        return None if stacks[0]["StackStatus"] == "DELETE_COMPLETE" else stacks[0]

    def _events(self) -> list[dict[str, Any]]:
        if self.status() is None:
            return []
        pages = self._cloudformation.get_paginator("describe_stack_events").paginate(StackName=self._name)
        return [event for page in pages for event in page["StackEvents"]]


def _wait_for_change_set(cloudformation: Any, change_set: str) -> str | None:
    """Return None when it can be executed, or the reason why it cannot."""
    while True:
        described = cloudformation.describe_change_set(ChangeSetName=change_set)
        if described["Status"] == "CREATE_COMPLETE":
            return None
        if described["Status"] == "FAILED":
            return described.get("StatusReason", "the change set failed without a reason")
        time.sleep(POLL_SECONDS)


def _uploader(session: boto3.Session) -> Callable[[bytes, str], S3Object]:
    from botocore.exceptions import ClientError

    s3 = session.client("s3")
    account = session.client("sts").get_caller_identity()["Account"]
    bucket = f"deployments-{account}-{session.region_name}"
    with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou):  # what a crash soon after a start has left
        s3.create_bucket(Bucket=bucket)

    def upload(content: bytes, suffix: str) -> S3Object:
        key = f"{hashlib.sha256(content).hexdigest()}{suffix}"
        try:
            s3.head_object(Bucket=bucket, Key=key)
        except ClientError:
            s3.put_object(Bucket=bucket, Key=key, Body=content)
        return S3Object(bucket, key)

    return upload


def _upload_template(session: boto3.Session, template: dict[str, Any]) -> str:
    stored = _uploader(session)(json.dumps(template, default=str).encode(), ".template")
    return f"{session.client('s3').meta.endpoint_url}/{stored.bucket}/{stored.key}"
