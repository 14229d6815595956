"""ClassifyImage: each object of the inbox to the endpoint, and its one answer to results/.

Event: SQS messages, each a notification of S3's. Answer: the messages that are to come again. At least once in, exactly
one result out: the result's key comes from the object's key and version, and it is written only where there is none.

While the endpoint is missing, throttled or silent, messages are held back: sent again with a delay, as new ones whose
receives are not counted (docs/decisions/0004-held-back-by-sending-again.md). A message that fails for another reason is
received again; on its last try but one the reason becomes the result, and SQS then moves it to the dead-letter queue.
"""

import functools
import hashlib
import json
import os
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote_plus

import boto3
import documents
from aws_lambda_powertools import Logger
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError
from content import ContentRejected, type_of
from photograph import body_of
from tags import tag

LARGEST_OBJECT_BYTES = 64 * 1024 * 1024
"""Of what is read at all, before any parser sees it: the function's memory holds it."""

LARGEST_BODY_BYTES = 6_291_456
"""https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html"""

REFUSED_BY_MODEL = (400, 413, 415)

ENDPOINT_TROUBLE = (
    # https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html#API_runtime_InvokeEndpoint_Errors
    "InternalDependencyException",
    "InternalFailure",
    "ModelNotReadyException",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "ThrottlingException",
    "ValidationError",  # there is no such endpoint: what else it could mean is right in every request
)
BUSY = (429, 502, 503, 504)
NO_ANSWER = 0
"""The original status where the model's process ended or was too slow."""

INVOKE_SECONDS = 30.0
RESERVE_SECONDS = 15.0
"""For all that a message takes beside the endpoint's answer."""

SHORTEST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 4, 900
MOST_SERVER_ERRORS = 6
"""A model that answers with a server error may be in trouble, or this image may be its trouble: held back so often."""


ANSWERED = ("classified", "unknown")


class EventNotPublished(Exception):
    """EventBridge did not take the event; the message comes again."""


class EndpointInTrouble(Exception):
    """The endpoint gives no answer to any image for now."""


class GivenUp(Exception):
    """The message was received as often as it may be; SQS moves it to the dead-letter queue."""


@dataclass(frozen=True)
class Arrival:
    """One version of one object in the inbox. object_version: its version id, or its ETag where there are none."""

    bucket: str
    key: str
    version_id: str | None
    object_version: str
    size: int

    @property
    def id(self) -> str:
        return hashlib.sha256(f"{self.bucket}\n{self.key}\n{self.object_version}".encode()).hexdigest()

    @property
    def result_key(self) -> str:
        # Not the key itself: with its prefix it could be longer than the 1,024 bytes that S3 allows.
        return f"results/{hashlib.sha256(self.key.encode()).hexdigest()}/{self.object_version}.json"


@dataclass(frozen=True)
class Delivery:
    """A message as it came. receives: how often, this one counted. held: how often it was sent again before."""

    identifier: str
    body: str
    receives: int
    held: int


@dataclass(frozen=True)
class Settings:
    endpoint: str
    queue_url: str
    short_side_px: int
    unknown_below: float | None
    """None: the model's own threshold."""
    most_receives: int
    tags_objects: bool


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    settings = read_settings()
    again: list[str] = []
    trouble: EndpointInTrouble | None = None
    for delivery in in_order([parse(record) for record in event["Records"]]):
        if context.get_remaining_time_in_millis() < (INVOKE_SECONDS + RESERVE_SECONDS) * 1000:
            trouble = trouble or EndpointInTrouble("no time left in this invocation")
        try:
            if trouble is None:
                trouble = answer_message(delivery, settings)  # and the rest of the batch is not tried on it
            if trouble is not None:
                hold(delivery, trouble, settings)
        except Exception as error:  # noqa: BLE001 - whatever it was, this message comes again and the others do not
            Logger().exception("not answered", extra={"message_id": delivery.identifier, "receives": delivery.receives})
            bury(delivery, error, settings)
            again.append(delivery.identifier)
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in again]}


def read_settings() -> Settings:
    return Settings(
        endpoint=os.environ["ENDPOINT_NAME"],
        queue_url=os.environ["INBOX_QUEUE_URL"],
        short_side_px=int(os.environ["SHORT_SIDE_PX"]),
        unknown_below=float(below) if (below := os.environ["UNKNOWN_BELOW"]) else None,
        most_receives=int(os.environ["MOST_RECEIVES"]),
        tags_objects=os.environ["TAG_OBJECTS"] == "true",
    )


def parse(record: dict[str, Any]) -> Delivery:
    held = record.get("messageAttributes", {}).get("Held", {}).get("stringValue", "0")
    receives = int(record["attributes"]["ApproximateReceiveCount"])
    return Delivery(record["messageId"], record["body"], receives, int(held))


def in_order(deliveries: list[Delivery]) -> list[Delivery]:
    """What came before goes last, in another order each time: one of them may have ended the function."""
    new = [delivery for delivery in deliveries if delivery.receives == 1]
    seen = [delivery for delivery in deliveries if delivery.receives > 1]
    return new + random.sample(seen, len(seen))


def answer_message(delivery: Delivery, settings: Settings) -> EndpointInTrouble | None:
    """Answer every object that a message speaks of, unless the endpoint is in trouble: then return that.

    Raises what should bring the message again.
    """
    try:
        for arrival in arrivals(json.loads(delivery.body)):
            answer(arrival, delivery, settings)
    except EndpointInTrouble as trouble:
        return trouble
    return None


def arrivals(notification: dict[str, Any]) -> list[Arrival]:
    """Return the objects of a notification. s3:TestEvent, folders, deletions and other prefixes are none."""
    found = []
    for record in notification.get("Records", []):
        if not record["eventName"].startswith("ObjectCreated:"):
            continue
        stored = record["s3"]["object"]
        key = unquote_plus(stored["key"])
        if key.startswith("inbox/") and not key.endswith("/"):
            version_id = stored.get("versionId")
            version = version_id or stored["eTag"].strip('"')
            bucket = record["s3"]["bucket"]["name"]
            found.append(Arrival(bucket, key, version_id, version, stored.get("size", 0)))
    return found


def answer(arrival: Arrival, delivery: Delivery, settings: Settings) -> None:
    """Classify or reject one object, write the result where there is none yet, and publish it.

    Raises EndpointInTrouble if no image can be asked now, GivenUp on the last receive.
    """
    s3 = client("s3")
    if delivery.receives > 1 and (earlier := earlier_result(s3, arrival)):
        announce(arrival, earlier, settings)  # the function may have ended between the result and its event
        if earlier["status"] == "failed":
            raise GivenUp(f"{arrival.key}: {earlier['reason']}")
        return
    if delivery.receives >= settings.most_receives:
        raise GivenUp(f"{arrival.key}: the function ended without an answer: out of time or memory, or killed")
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
        body, body_type = body_of(image, content_type, LARGEST_BODY_BYTES, settings.short_side_px)
        timings_ms["convert"] = _milliseconds_since(started)
        started = time.perf_counter()
        runtime = client("sagemaker-runtime")
        outcome = classify(runtime, settings, body, body_type, last=delivery.held >= MOST_SERVER_ERRORS)
        timings_ms["invoke"] = _milliseconds_since(started)
    except ContentRejected as rejection:
        outcome = unanswered("rejected", rejection.code, rejection.message)
    result = described(arrival, delivery, settings) | {
        "bytes": stored["ContentLength"],
        "content_type": content_type,
        "metadata": stored["Metadata"],
        "timings_ms": timings_ms,
        **outcome,
    }
    if write_once(s3, arrival, result):
        announce(arrival, result, settings)
    elif (earlier := earlier_result(s3, arrival)) and earlier.get("message_id") == delivery.identifier:
        announce(arrival, earlier, settings)  # our own: the reply to its first writing was lost, or this is told anew


def described(arrival: Arrival, delivery: Delivery, settings: Settings) -> dict[str, Any]:
    """Return what every result says of its object, and by which message it came."""
    return {
        "version": 1,
        "id": arrival.id,
        "bucket": arrival.bucket,
        "key": arrival.key,
        "object_version": arrival.object_version,
        "message_id": delivery.identifier,
        "bytes": arrival.size,
        "content_type": None,
        "endpoint": settings.endpoint,
        "metadata": {},
        "timings_ms": {},
        "answered_at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }


def unanswered(status: str, code: str, message: str) -> dict[str, Any]:
    return {
        "status": status,
        "label": None,
        "probability": None,
        "predictions": [],
        "reason": {"code": code, "message": message},
        "model": None,
    }


def hold(delivery: Delivery, trouble: EndpointInTrouble, settings: Settings) -> None:
    """Send the message again with a delay that grows; this one is then done with. Two may be there if that fails."""
    delay = min(SHORTEST_DELAY_SECONDS * 2**delivery.held, LONGEST_DELAY_SECONDS)
    Logger().warning("held back", extra={"message_id": delivery.identifier, "held": delivery.held, "why": str(trouble)})
    client("sqs").send_message(
        QueueUrl=settings.queue_url,
        MessageBody=delivery.body,
        DelaySeconds=random.randint(delay // 2, delay),
        MessageAttributes={"Held": {"DataType": "Number", "StringValue": str(min(delivery.held + 1, 99))}},
    )


def bury(delivery: Delivery, error: Exception, settings: Settings) -> None:
    """Make the reason the result, where the message is about to be given up and says what it is about."""
    if delivery.receives < settings.most_receives - 1:
        return
    try:
        for arrival in arrivals(json.loads(delivery.body)):
            reason = unanswered("failed", type(error).__name__, str(error))
            result = described(arrival, delivery, settings) | reason
            if write_once(client("s3"), arrival, result):
                announce(arrival, result, settings)
    except Exception:  # noqa: BLE001 - the message goes to the dead-letter queue without a result
        Logger().exception("no result could be written", extra={"message_id": delivery.identifier})


def classify(runtime: Any, settings: Settings, image: bytes, content_type: str, last: bool) -> dict[str, Any]:
    """Return the outcome of an image. last: a server error is no more taken for trouble that passes.

    Raises ContentRejected if the model refuses it, EndpointInTrouble if it is not the image that is at fault; any other
    error comes again.
    """
    try:
        response = runtime.invoke_endpoint(
            EndpointName=settings.endpoint, ContentType=content_type, Accept="application/json", Body=image
        )
        body = json.loads(response["Body"].read())
    except HTTPClientError as error:
        raise EndpointInTrouble(str(error)) from error
    except ClientError as error:
        if error.response.get("OriginalStatusCode") in REFUSED_BY_MODEL:
            raise _refusal(error.response) from error
        if _is_trouble(error.response, last):
            raise EndpointInTrouble(str(error)) from error
        raise
    first = body["predictions"][0]
    model = {"confidence_threshold": 0, "package_arn": None} | body["model"]  # older artifacts know neither
    outcome = {
        "status": "classified",
        "label": first["label"],
        "probability": first["probability"],
        "predictions": body["predictions"],
        "reason": None,
        "model": model,
    }
    threshold = model["confidence_threshold"] if settings.unknown_below is None else settings.unknown_below
    if first["probability"] < threshold:
        message = f"{first['label']} at {first['probability']:.4f}; answers below {threshold:g} are none"
        outcome |= {"status": "unknown", "label": None, "reason": {"code": "BelowConfidence", "message": message}}
    return outcome


def earlier_result(s3: Any, arrival: Arrival) -> dict[str, Any] | None:
    try:
        return documents.read(s3, f"s3://{arrival.bucket}/{arrival.result_key}", "classification")
    except documents.DocumentMissing:
        return None


def write_once(s3: Any, arrival: Arrival, result: dict[str, Any]) -> bool:
    """Write the result unless there is one; return whether it was written: who wrote the other tells of that."""
    try:
        s3.put_object(
            Bucket=arrival.bucket,
            Key=arrival.result_key,
            Body=json.dumps(
                documents.checked(result, "classification", arrival.result_key), ensure_ascii=False
            ).encode(),
            ContentType="application/json",
            IfNoneMatch="*",
        )
    except ClientError as error:
        # 409 ConditionalRequestConflict is raised on: another write is under way, and the message comes again.
        if error.response["Error"]["Code"] != "PreconditionFailed":
            raise
        return False
    return True


def announce(arrival: Arrival, result: dict[str, Any], settings: Settings) -> None:
    """Tell of a result that is written: by the object's tags where they are asked for, and by an event.

    The event's id is stable, so that whoever gets it twice can tell.
    """
    if settings.tags_objects:
        tag(client("s3"), result, arrival.version_id)
    entry = {
        "Source": "kelpie",
        "DetailType": "ImageClassified" if result["status"] in ANSWERED else "ImageRejected",
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


def _is_trouble(response: dict[str, Any], last: bool) -> bool:
    code, status = response["Error"]["Code"], response.get("OriginalStatusCode")
    if code != "ModelError":
        return code in ENDPOINT_TROUBLE
    return status in BUSY or (not last and (status is None or status == NO_ANSWER or status >= 500))


def _milliseconds_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 1)


@functools.cache
def client(service: str) -> Any:
    if service == "sagemaker-runtime":  # what it does not answer is held back, not waited for
        once = Config(connect_timeout=5, read_timeout=INVOKE_SECONDS, retries={"total_max_attempts": 1})
        return boto3.client(service, config=once)
    return boto3.client(service)
