"""ClearUp: with the stack goes what CloudFormation leaves behind, if the stack was told so: endpoints, objects, bucket.

A custom resource of the template: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref.html
It acts on the stack's deletion alone, and only where OnStackDeletion is Delete. The bucket itself is retained by its
DeletionPolicy, so it is deleted here, once it is empty.
"""

import functools
import json
import re
import urllib.request
from collections.abc import Callable
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

CHAMPION = re.compile(r"endpoints/(?P<endpoint>[^/]+)/champion\.json")
LEAST_MILLISECONDS = 20_000
"""What is left of the function's time when it gives up in good order."""

MOST_REASON = 1_000
"""An answer to CloudFormation has at most 4,096 bytes."""


class NotEmptied(Exception):
    """Objects are left. The message says why, and that deleting the stack once more goes on from there."""


def handler(event: dict[str, Any], context: Any) -> None:
    properties, status, reason = event["ResourceProperties"], "SUCCESS", ""
    try:
        if event["RequestType"] == "Delete" and properties["OnStackDeletion"] == "Delete":
            clear_up(properties["Bucket"], client("s3"), client("sagemaker"), context.get_remaining_time_in_millis)
    except Exception as error:  # noqa: BLE001 - CloudFormation waits an hour for an answer that does not come
        Logger().exception("not cleared up")
        status, reason = "FAILED", f"{type(error).__name__}: {error}"[:MOST_REASON]
    answer(event, {"Status": status, "Reason": reason, "PhysicalResourceId": f"contents of {properties['Bucket']}"})


def clear_up(bucket: str, s3: Any, sagemaker: Any, milliseconds_left: Callable[[], int]) -> None:
    """Delete the endpoints that runs brought into service, every version of every object, and the bucket.

    A bucket that is gone already is as good. Raises NotEmptied, or what S3 and SageMaker answer.
    """
    try:
        for endpoint in endpoints(s3, bucket):
            delete_endpoint(sagemaker, endpoint)
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            delete_versions(s3, bucket, page.get("Versions", []) + page.get("DeleteMarkers", []))
            if milliseconds_left() < LEAST_MILLISECONDS:
                raise NotEmptied(f"{bucket} holds more objects than fit one call: delete the stack once more to go on")
        s3.delete_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchBucket":
            raise


def endpoints(s3: Any, bucket: str) -> list[str]:
    """Return the endpoints of which the stack's runs keep a champion."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="endpoints/")
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    return [found["endpoint"] for found in map(CHAMPION.fullmatch, keys) if found]


def delete_endpoint(sagemaker: Any, name: str) -> None:
    try:
        sagemaker.delete_endpoint(EndpointName=name)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationException":  # SageMaker's answer for one that is not there
            raise


def delete_versions(s3: Any, bucket: str, versions: list[dict[str, Any]]) -> None:
    if not versions:
        return
    objects = [{"Key": version["Key"], "VersionId": version["VersionId"]} for version in versions]
    refused = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True}).get("Errors", [])
    if refused:
        first = refused[0]
        raise NotEmptied(f"{bucket}: {len(refused)} objects stay, the first {first['Key']!r}: {first.get('Message')}")


def answer(event: dict[str, Any], document: dict[str, str]) -> None:
    """Put the answer where CloudFormation waits for it: a signed URL of S3, which wants no content type."""
    identity = {key: event[key] for key in ("StackId", "RequestId", "LogicalResourceId")}
    body = json.dumps(document | identity).encode()
    request = urllib.request.Request(
        event["ResponseURL"], data=body, method="PUT", headers={"Content-Type": "", "Content-Length": str(len(body))}
    )
    with urllib.request.urlopen(request, timeout=30):
        pass


@functools.cache
def client(service: str) -> Any:
    return boto3.client(service)
