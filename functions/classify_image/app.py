"""ClassifyImage: each object of the inbox to the endpoint, and its one answer to results/.

Event: SQS messages, each a notification of S3's. Answer: the messages that are to come again. At least once in, exactly
one result out: the result's key comes from the object's key and version, and it is written only where there is none.

While the endpoint is missing, throttled or silent, messages are held back: sent again with a delay, as new ones whose
receives are not counted (docs/decisions/0004-held-back-by-sending-again.md). A message that fails for another reason is
received again; on its last try the reason becomes the result, and the message goes to the dead-letter queue.
"""

import os
import time
from dataclasses import dataclass
from typing import Any

from aws_lambda_powertools import Logger
from botocore.config import Config
from botocore.exceptions import ClientError
from content import ContentRejected, type_of
from endpoint import Endpoint
from invocation import client
from messages import IN_THE_WAY, Arrival, Delivery, NotNow, Queues, in_order, parse, spoken_of
from photograph import body_of
from results import Results, described, is_by, unanswered

LARGEST_OBJECT_BYTES = 64 * 1024 * 1024
"""Of what is read at all, before any parser sees it: the function's memory holds it."""

LARGEST_BODY_BYTES = 6_291_456
"""https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html"""

INVOKE_SECONDS = 30.0
RESERVE_SECONDS = 15.0
"""For all that a message takes beside the endpoint's answer."""

MOST_SERVER_ERRORS = 6
"""A model that answers with a server error may be in trouble, or this image may be its trouble: held back so often."""

GONE = ("NoSuchKey", "NoSuchVersion", "MethodNotAllowed")


class GivenUp(Exception):
    """The message was tried as often as it may be."""


@dataclass(frozen=True)
class Inbox:
    """What the environment says, and who is spoken to."""

    short_side_px: int
    most_tries: int
    s3: Any
    endpoint: Endpoint
    results: Results
    queues: Queues


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    inbox = open_inbox()
    again: list[str] = []
    trouble: Exception | None = None
    for delivery in in_order([parse(record) for record in event["Records"]]):
        if context.get_remaining_time_in_millis() < (INVOKE_SECONDS + RESERVE_SECONDS) * 1000:
            trouble = trouble or NotNow("no time left in this invocation")
        try:
            if trouble is None:
                trouble = answer_message(delivery, inbox)  # and the rest of the batch is not tried on it
            if trouble is not None:
                inbox.queues.hold(delivery, trouble)
        except Exception:  # noqa: BLE001 - whatever it was, this message comes again and the others do not
            Logger().exception("not answered", extra={"message_id": delivery.origin, "receives": delivery.receives})
            again.append(delivery.identifier)
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in again]}


def open_inbox() -> Inbox:
    below = os.environ["UNKNOWN_BELOW"]
    s3 = client("s3")
    # What can be held back is not waited for: neither the endpoint nor the bus outlasts the function.
    once = Config(connect_timeout=2, read_timeout=INVOKE_SECONDS, retries={"total_max_attempts": 1})
    twice = Config(connect_timeout=2, read_timeout=4, retries={"total_max_attempts": 2})
    return Inbox(
        short_side_px=int(os.environ["SHORT_SIDE_PX"]),
        most_tries=int(os.environ["MOST_TRIES"]),
        s3=s3,
        endpoint=Endpoint(
            client("sagemaker-runtime", once),
            os.environ["ENDPOINT_NAME"],
            unknown_below=float(below) if below else None,
        ),
        results=Results(s3, client("events", twice), tags_objects=os.environ["TAG_OBJECTS"] == "true"),
        queues=Queues(client("sqs"), os.environ["INBOX_QUEUE_URL"], os.environ["DEAD_LETTER_QUEUE_URL"]),
    )


def answer_message(delivery: Delivery, inbox: Inbox) -> Exception | None:
    """Answer every object that a message speaks of, or give it up, unless something is in the way: then return that.

    Raises what should bring the message again.
    """
    try:
        for arrival in spoken_of(delivery):
            answer(arrival, delivery, inbox)
    except IN_THE_WAY as trouble:
        return trouble
    except Exception as error:
        if delivery.receives < inbox.most_tries and not isinstance(error, GivenUp):
            raise
        Logger().exception("given up", extra={"message_id": delivery.origin, "receives": delivery.receives})
        return give_up(delivery, error, inbox)
    return None


def answer(arrival: Arrival, delivery: Delivery, inbox: Inbox) -> None:
    """Classify or reject one object, write the result where there is none yet, and announce it.

    Raises one of IN_THE_WAY if no image can be answered now, GivenUp after the last try.
    """
    if delivery.came_before and (earlier := inbox.results.earlier(arrival)):
        if not is_by(delivery, earlier):
            return  # who wrote it tells of it
        if earlier["status"] == "failed":
            raise GivenUp(f"{arrival.key}: it was being given up")
        inbox.results.announce(arrival, earlier)  # the function ended between the result and its event
        return
    if delivery.receives > inbox.most_tries:
        raise GivenUp(f"{arrival.key}: the function ended without an answer: out of time or memory, or killed")
    started = time.perf_counter()
    version = {"VersionId": arrival.version_id} if arrival.version_id else {}
    try:
        stored = inbox.s3.get_object(Bucket=arrival.bucket, Key=arrival.key, **version)
    except ClientError as error:
        if error.response["Error"]["Code"] in GONE:
            Logger().info("deleted before it was classified", extra={"key": arrival.key})
            return
        raise
    result = described(arrival, delivery, inbox.endpoint.name) | outcome_of(stored, started, delivery, inbox)
    inbox.results.conclude(arrival, delivery, result)


def outcome_of(stored: dict[str, Any], started: float, delivery: Delivery, inbox: Inbox) -> dict[str, Any]:
    """Return what the result says of the object that S3 answered with, which was asked for at `started`."""
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
        body, body_type = body_of(image, content_type, LARGEST_BODY_BYTES, inbox.short_side_px)
        timings_ms["convert"] = _milliseconds_since(started)
        started = time.perf_counter()
        outcome = inbox.endpoint.classify(body, body_type, last=delivery.held >= MOST_SERVER_ERRORS)
        timings_ms["invoke"] = _milliseconds_since(started)
    except ContentRejected as rejection:
        outcome = unanswered("rejected", rejection.code, rejection.message)
    return {
        "bytes": stored["ContentLength"],
        "content_type": content_type,
        "metadata": stored["Metadata"],
        "timings_ms": timings_ms,
        **outcome,
    }


def give_up(delivery: Delivery, error: Exception, inbox: Inbox) -> Exception | None:
    """Make the reason the result and bury the message, unless something is in the way: then return that.

    SQS would bury it by itself, but only at a receive later, at which nobody could say whether the event was published.
    """
    try:
        for arrival in spoken_of(delivery):
            reason = unanswered("failed", type(error).__name__, str(error))
            result = described(arrival, delivery, inbox.endpoint.name) | reason
            inbox.results.conclude(arrival, delivery, result)
    except IN_THE_WAY as trouble:
        return trouble
    inbox.queues.bury(delivery)
    return None


def _milliseconds_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 1)
