"""ClassifyImage: each object of the inbox to the endpoint, and its one answer to results/.

Event: SQS messages, each a notification of S3's. Answer: the messages that are to come again. At least once in, exactly
one result out: the result's key comes from the object's key and version, and it is written only where there is none.
"""

import functools
import hashlib
import json
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus

import boto3
import documents
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from botocore.exceptions import ClientError
from content import ContentRejected, type_of
from photograph import body_of

LARGEST_OBJECT_BYTES = 64 * 1024 * 1024
"""Of what is read at all, before any parser sees it: the function's memory holds it."""

LARGEST_BODY_BYTES = 6_291_456
"""https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html"""

REFUSED_BY_MODEL = (400, 413, 415)


class EventNotPublished(Exception):
    """EventBridge did not take the event; the message comes again."""


@dataclass(frozen=True)
class Arrival:
    """One version of one object in the inbox. object_version: its version id, or its ETag where there are none."""

    bucket: str
    key: str
    version_id: str | None
    object_version: str

    @property
    def id(self) -> str:
        return hashlib.sha256(f"{self.bucket}\n{self.key}\n{self.object_version}".encode()).hexdigest()

    @property
    def result_key(self) -> str:
        # Not the key itself: with its prefix it could be longer than the 1,024 bytes that S3 allows.
        return f"results/{hashlib.sha256(self.key.encode()).hexdigest()}/{self.object_version}.json"


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
    return dict(
        process_partial_response(event=event, record_handler=answer_message, processor=processor, context=context)
    )


def answer_message(record: SQSRecord) -> None:
    """Answer every object that a message speaks of. Raises what should bring the message again."""
    for arrival in arrivals(json.loads(record.body)):
        answer(arrival, os.environ["ENDPOINT_NAME"])


def arrivals(notification: dict[str, Any]) -> list[Arrival]:
    """Return the objects of a notification. s3:TestEvent, folders, deletions and other prefixes are none."""
    found = []
    for record in notification.get("Records", []):
        stored = record["s3"]["object"]
        key = unquote_plus(stored["key"])
        if record["eventName"].startswith("ObjectCreated:") and key.startswith("inbox/") and not key.endswith("/"):
            version_id = stored.get("versionId")
            version = version_id or stored["eTag"].strip('"')
            found.append(Arrival(record["s3"]["bucket"]["name"], key, version_id, version))
    return found


def answer(arrival: Arrival, endpoint: str) -> None:
    """Classify or reject one object, write the result where there is none yet, and publish it."""
    s3 = client("s3")
    started = time.perf_counter()
    version = {"VersionId": arrival.version_id} if arrival.version_id else {}
    try:
        stored = s3.get_object(Bucket=arrival.bucket, Key=arrival.key, **version)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "NoSuchVersion", "MethodNotAllowed"):
            Logger().info("deleted before it was classified", extra={"key": arrival.key})
            return
        raise
    content_type, outcome = None, {}
    timings_ms = {}
    try:
        if stored["ContentLength"] > LARGEST_OBJECT_BYTES:
            raise ContentRejected(
                "TooLarge", f"{stored['ContentLength']} bytes: at most {LARGEST_OBJECT_BYTES} are read"
            )
        image = stored["Body"].read()
        timings_ms["fetch"] = _milliseconds_since(started)
        content_type = type_of(image)
        started = time.perf_counter()
        body, body_type = body_of(image, content_type, LARGEST_BODY_BYTES, int(os.environ["SHORT_SIDE_PX"]))
        timings_ms["convert"] = _milliseconds_since(started)
        started = time.perf_counter()
        outcome = classify(client("sagemaker-runtime"), endpoint, body, body_type)
        timings_ms["invoke"] = _milliseconds_since(started)
    except ContentRejected as rejection:
        reason = {"code": rejection.code, "message": rejection.message}
        outcome = {
            "status": "rejected",
            "label": None,
            "probability": None,
            "predictions": [],
            "reason": reason,
            "model": None,
        }
    result = {
        "version": 1,
        "id": arrival.id,
        "bucket": arrival.bucket,
        "key": arrival.key,
        "object_version": arrival.object_version,
        "bytes": stored["ContentLength"],
        "content_type": content_type,
        "endpoint": endpoint,
        "metadata": stored["Metadata"],
        "timings_ms": timings_ms,
        "answered_at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        **outcome,
    }
    publish(write_once(s3, arrival, documents.checked(result, "classification", arrival.result_key)))


def classify(runtime: Any, endpoint: str, image: bytes, content_type: str) -> dict[str, Any]:
    """Return the outcome of an image. Raises ContentRejected if the model refuses it; any other error comes again."""
    try:
        response = runtime.invoke_endpoint(
            EndpointName=endpoint, ContentType=content_type, Accept="application/json", Body=image
        )
    except ClientError as error:
        if error.response.get("OriginalStatusCode") in REFUSED_BY_MODEL:
            raise _refusal(error.response) from error
        raise
    body = json.loads(response["Body"].read())
    first = body["predictions"][0]
    return {
        "status": "classified",
        "label": first["label"],
        "probability": first["probability"],
        "predictions": body["predictions"],
        "reason": None,
        "model": body["model"],
    }


def write_once(s3: Any, arrival: Arrival, result: dict[str, Any]) -> dict[str, Any]:
    """Write the result unless there is one; return the one that is there now."""
    try:
        s3.put_object(
            Bucket=arrival.bucket,
            Key=arrival.result_key,
            Body=json.dumps(result, ensure_ascii=False).encode(),
            ContentType="application/json",
            IfNoneMatch="*",
        )
    except ClientError as error:
        # 409 ConditionalRequestConflict is raised on: another write is under way, and the message comes again.
        if error.response["Error"]["Code"] != "PreconditionFailed":
            raise
        return documents.read(s3, f"s3://{arrival.bucket}/{arrival.result_key}", "classification")
    return result


def publish(result: dict[str, Any]) -> None:
    """Publish a result that is written. Its id is stable, so that whoever gets it twice can tell."""
    entry = {
        "Source": "kelpie",
        "DetailType": "ImageClassified" if result["status"] == "classified" else "ImageRejected",
        "Detail": json.dumps(result, ensure_ascii=False),
    }
    response = client("events").put_events(Entries=[entry])
    if response["FailedEntryCount"]:
        raise EventNotPublished(f"{result['key']}: {response['Entries'][0]}")


def _refusal(response: dict[str, Any]) -> ContentRejected:
    try:
        body = json.loads(response["OriginalMessage"])
        return ContentRejected(body["error"], body["reason"])
    except (ValueError, KeyError, TypeError):
        return ContentRejected("RefusedByModel", str(response.get("OriginalMessage")))


def _milliseconds_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 1)


@functools.cache
def client(service: str) -> Any:
    return boto3.client(service)
