"""SweepInbox: what lies in the inbox without a result is put into the queue again.

S3 is the truth and the queue a hint: events that never came, messages that a queue forgot after 14 days, and objects
that were there before the stack are found by comparing. Event: the schedule's, or {}. Answer: what was found and where
the next sweep goes on.

One sweep looks at no more than MOST_CHECKED versions and goes on where the last one ended (sweep/inbox.json), so that
its cost has a limit whatever the inbox holds: a LIST for each 1,000 versions and a HEAD for each, $0.0004 in us-east-1
(https://aws.amazon.com/s3/pricing/); 50,000 an hour at the most is $0.49 a day. A million images that were there before
are looked at in 20 sweeps, faster with a shorter schedule, and for $0.41, queued for another $0.04.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote_plus

import documents
from aws_lambda_powertools import Logger
from botocore.config import Config
from botocore.exceptions import ClientError
from invocation import client

STATE_KEY = "sweep/inbox.json"
VERSIONS_A_PAGE = 1000
PARALLEL_REQUESTS = 32
MESSAGES_A_REQUEST = 10
"""https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html"""
RESERVE_SECONDS = 30
"""For what a page takes."""


class NotQueued(Exception):
    """SQS did not take some of the messages; the next sweep finds their objects again."""


@dataclass(frozen=True)
class Settings:
    bucket: str
    queue_url: str
    most_checked: int
    most_waiting: int
    youngest: timedelta


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001 - a schedule says nothing
    settings = read_settings()
    s3 = client("s3", Config(max_pool_connections=PARALLEL_REQUESTS))
    state_uri = f"s3://{settings.bucket}/{STATE_KEY}"
    markers = read_markers(s3, state_uri)
    checked = queued = 0
    ended = "checked as many as it may"
    waiting = messages_waiting(settings.queue_url)
    while checked < settings.most_checked:
        if waiting + queued >= settings.most_waiting:
            ended = "enough is waiting"
            break
        if context.get_remaining_time_in_millis() < RESERVE_SECONDS * 1000:
            ended = "out of time"
            break
        page = s3.list_object_versions(Bucket=settings.bucket, Prefix="inbox/", MaxKeys=VERSIONS_A_PAGE, **markers)
        candidates = due(page, datetime.now(UTC) - settings.youngest)
        missing = without_result(s3, settings.bucket, candidates)
        queue(settings, missing)
        checked, queued = checked + len(candidates), queued + len(missing)
        markers = next_markers(page)
        write_markers(s3, state_uri, markers)
        if not markers:
            ended = "reached the end"
            break
    answer = {"checked": checked, "queued": queued, "ended": ended, "next_key": markers.get("KeyMarker")}
    Logger().info("swept", extra=answer)
    return answer


def read_settings() -> Settings:
    return Settings(
        bucket=os.environ["BUCKET"],
        queue_url=os.environ["INBOX_QUEUE_URL"],
        most_checked=int(os.environ["MOST_CHECKED"]),
        most_waiting=int(os.environ["MOST_WAITING"]),
        youngest=timedelta(minutes=int(os.environ["YOUNGEST_MINUTES"])),
    )


def read_markers(s3: Any, uri: str) -> dict[str, str]:
    try:
        state = documents.read(s3, uri, "sweep")
    except documents.DocumentMissing:
        return {}
    except documents.DocumentInvalid:
        Logger().exception("the sweep begins anew")
        return {}
    if state["key_marker"] is None:
        return {}
    return {"KeyMarker": state["key_marker"], "VersionIdMarker": state["version_id_marker"]}


def write_markers(s3: Any, uri: str, markers: dict[str, str]) -> None:
    place = {"key_marker": markers.get("KeyMarker"), "version_id_marker": markers.get("VersionIdMarker")}
    documents.write(s3, uri, "sweep", {"version": 1, **place})


def messages_waiting(queue_url: str) -> int:
    """Return how many messages the queue holds: visible, in flight and delayed. They need no second one."""
    names = [
        "ApproximateNumberOfMessages",
        "ApproximateNumberOfMessagesNotVisible",
        "ApproximateNumberOfMessagesDelayed",
    ]
    attributes = client("sqs").get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)["Attributes"]
    return sum(int(attributes.get(name, 0)) for name in names)


def due(page: dict[str, Any], before: datetime) -> list[dict[str, Any]]:
    """Return the versions of a page that should have a result: no folders, nothing that has only just come."""
    versions = page.get("Versions", [])
    return [version for version in versions if not version["Key"].endswith("/") and version["LastModified"] < before]


def without_result(s3: Any, bucket: str, versions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    def is_missing(version: dict[str, Any]) -> bool:
        try:
            s3.head_object(Bucket=bucket, Key=result_key(version))
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                return True
            raise
        return False

    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        return [version for version, missing in zip(versions, pool.map(is_missing, versions), strict=True) if missing]


def result_key(version: dict[str, Any]) -> str:
    """Where classify_image writes it."""
    return f"results/{hashlib.sha256(version['Key'].encode()).hexdigest()}/{version['VersionId']}.json"


def queue(settings: Settings, versions: list[dict[str, Any]]) -> None:
    """Send a notification as S3's own for each version. Raises NotQueued."""

    def send(some: list[dict[str, Any]]) -> None:
        bodies = [json.dumps(notification(settings.bucket, version)) for version in some]
        entries = [{"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies)]
        answer = client("sqs").send_message_batch(QueueUrl=settings.queue_url, Entries=entries)
        if refused := answer.get("Failed"):
            raise NotQueued(f"{len(refused)} of {len(entries)} messages were not taken, the first: {refused[0]}")

    starts = range(0, len(versions), MESSAGES_A_REQUEST)
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        list(pool.map(send, [versions[start : start + MESSAGES_A_REQUEST] for start in starts]))


def notification(bucket: str, version: dict[str, Any]) -> dict[str, Any]:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html"""
    stored = {
        "key": quote_plus(version["Key"]),
        "versionId": version["VersionId"],
        "eTag": version["ETag"].strip('"'),
        "size": version["Size"],
    }
    return {"Records": [{"eventName": "ObjectCreated:Swept", "s3": {"bucket": {"name": bucket}, "object": stored}}]}


def next_markers(page: dict[str, Any]) -> dict[str, str]:
    """Return where the next page begins; empty at the end."""
    if not page.get("IsTruncated"):
        return {}
    return {"KeyMarker": page["NextKeyMarker"], "VersionIdMarker": page["NextVersionIdMarker"]}
