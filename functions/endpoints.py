"""What is known of an endpoint: how it is, and, under endpoints/<name>/, its champion, its lock and who holds that.

Carried by a link, as documents.py is.
"""

import json
from typing import Any

import documents
from botocore.exceptions import ClientError

RUNNING = ("RUNNING", "PENDING_REDRIVE")
CHANGED_MEANWHILE = ("PreconditionFailed", "ConditionalRequestConflict")


class LockContended(Exception):
    """Others kept writing the lock at the same moments. Asking again is safe."""


def folder_of(plan: dict[str, Any]) -> str:
    """Return the s3:// folder of the plan's endpoint, without a final slash."""
    return f"s3://{plan['bucket']}/endpoints/{plan['names']['endpoint']}"


def is_running(stepfunctions: Any, execution_arn: str) -> bool:
    try:
        return stepfunctions.describe_execution(executionArn=execution_arn)["status"] in RUNNING
    except ClientError as error:
        # Executions are forgotten 90 days after their end.
        if error.response["Error"]["Code"] == "ExecutionDoesNotExist":
            return False
        raise


def described(sagemaker: Any, endpoint: str) -> dict[str, Any] | None:
    """Return DescribeEndpoint's answer, or None if there is no such endpoint."""
    # Describing one that is not there fails with an error that cannot be told from others by its name.
    for page in sagemaker.get_paginator("list_endpoints").paginate(NameContains=endpoint):
        if endpoint in (found["EndpointName"] for found in page["Endpoints"]):
            return sagemaker.describe_endpoint(EndpointName=endpoint)
    return None


def read_champion(s3: Any, folder: str) -> dict[str, Any] | None:
    """Return the pointer to what the endpoint serves, or None before the first deploy."""
    try:
        return documents.read(s3, f"{folder}/champion.json", "champion")
    except documents.DocumentMissing:
        return None


def read_lock(s3: Any, folder: str) -> tuple[dict[str, Any], str | None]:
    """Return the lock and its ETag; a lock that was never taken has none."""
    bucket, key = documents.split_uri(f"{folder}/lock.json")
    try:
        found = s3.get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchKey":
            raise
        return {"owner": None, "left_by": None}, None
    return documents.checked(json.loads(found["Body"].read()), "lock", f"{folder}/lock.json"), found["ETag"]


def write_lock(s3: Any, folder: str, lock: dict[str, Any], etag: str | None) -> bool:
    """Write the lock if nobody has written it since it was read; return whether it was written."""
    bucket, key = documents.split_uri(f"{folder}/lock.json")
    body = json.dumps(documents.checked(lock, "lock", f"{folder}/lock.json"), indent=2).encode()
    condition = {"IfMatch": etag} if etag else {"IfNoneMatch": "*"}
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/json", **condition)
    except ClientError as error:
        if error.response["Error"]["Code"] not in CHANGED_MEANWHILE:
            raise
        return False
    return True
