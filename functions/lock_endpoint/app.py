"""LockEndpoint: one run at a time between the gate and VerifyEndpoint. UnlockEndpoint gives the lock back.

The lock is an object beside the champion's pointer, owned by an execution and written under S3's conditions. It is
taken over only from an execution that has ended, whose deploy must then be recovered before anything else.

Event: {"action": "lock" or "unlock", "plan_uri": ...}. Answer: {"held": whether this run has the lock, "owner": the
execution that has it or "", "left_by": the execution whose deploy is to be recovered first, or "",
"champion_channels": the input channels by which EvaluateModel sees the champion, none if there is none}.
"""

import functools
import json
from datetime import UTC, datetime
from typing import Any

import boto3
import documents
from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

ATTEMPTS = 5
CHANGED_MEANWHILE = ("PreconditionFailed", "ConditionalRequestConflict")
RUNNING = ("RUNNING", "PENDING_REDRIVE")


class LockContended(Exception):
    """Others kept writing the lock at the same moments. Step Functions asks again."""


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    s3 = client("s3")
    plan = documents.read(s3, event["plan_uri"], "plan")
    uri = f"s3://{plan['bucket']}/endpoints/{plan['names']['endpoint']}/lock.json"
    for _ in range(ATTEMPTS):
        lock, etag = read(s3, uri)
        wanted = unlocked(lock, plan) if event["action"] == "unlock" else locked(lock, plan)
        if wanted == lock or write(s3, uri, wanted, etag):
            log(plan["execution_arn"], context).info(event["action"], extra={"owner": wanted["owner"]})
            held = wanted["owner"] == plan["execution_arn"]
            answer = {"held": held, "owner": wanted["owner"] or "", "left_by": wanted["left_by"] or ""}
            return answer | {"champion_channels": champion_channels(s3, uri) if held else []}
    raise LockContended(f"{uri} was written by others {ATTEMPTS} times in a row")


def locked(lock: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    """Return the lock as this run would have it: its own, unless the owner still runs."""
    owner = lock["owner"]
    if owner == plan["execution_arn"] or (owner and is_running(client("stepfunctions"), owner)):
        return lock
    # Who took the lock over and ended before it had recovered leaves that to the next.
    return made(plan, plan["execution_arn"], lock["left_by"] or owner)


def unlocked(lock: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    return made(plan, None, None) if lock["owner"] == plan["execution_arn"] else lock


def made(plan: dict[str, Any], owner: str | None, left_by: str | None) -> dict[str, Any]:
    since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"version": 1, "endpoint": plan["names"]["endpoint"], "owner": owner, "left_by": left_by, "since": since}


def champion_channels(s3: Any, lock_uri: str) -> list[dict[str, Any]]:
    try:
        champion = documents.read(s3, lock_uri.replace("/lock.json", "/champion.json"), "champion")
    except documents.DocumentMissing:
        return []
    sources = {"champion": champion["model_data"], "champion_manifest": champion["manifest"]}
    return [
        {
            "ChannelName": name,
            "InputMode": "File",
            "DataSource": {
                "S3DataSource": {"S3DataType": "S3Prefix", "S3DataDistributionType": "FullyReplicated", "S3Uri": uri}
            },
        }
        for name, uri in sources.items()
    ]


def is_running(stepfunctions: Any, execution_arn: str) -> bool:
    try:
        return stepfunctions.describe_execution(executionArn=execution_arn)["status"] in RUNNING
    except ClientError as error:
        # Executions are forgotten 90 days after their end.
        if error.response["Error"]["Code"] == "ExecutionDoesNotExist":
            return False
        raise


def read(s3: Any, uri: str) -> tuple[dict[str, Any], str | None]:
    """Return the lock and its ETag; a lock that was never taken has none."""
    bucket, key = documents.split_uri(uri)
    try:
        found = s3.get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchKey":
            raise
        return {"owner": None, "left_by": None}, None
    return documents.checked(json.loads(found["Body"].read()), "lock", uri), found["ETag"]


def write(s3: Any, uri: str, lock: dict[str, Any], etag: str | None) -> bool:
    """Write the lock if nobody has written it since it was read; return whether it was written."""
    bucket, key = documents.split_uri(uri)
    body = json.dumps(documents.checked(lock, "lock", uri), indent=2).encode()
    condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/json", **condition)
    except ClientError as error:
        if error.response["Error"]["Code"] not in CHANGED_MEANWHILE:
            raise
        return False
    return True


def log(execution_arn: str, context: Any) -> Logger:
    logger = Logger()
    logger.set_correlation_id(execution_arn)
    logger.append_keys(request_id=context.aws_request_id)
    return logger


@functools.cache
def client(service: str) -> Any:
    return boto3.client(service)
