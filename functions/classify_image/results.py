"""Results: one for each version of an object, and told of by the message that wrote it.

A message puts its own id into the result that it writes, and is not done with before it has told of it. If it is cut
short between the two it comes again, finds its result, and tells. Any other message about the same version finds a
result that is not its own, and leaves it.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import documents
from botocore.exceptions import ClientError
from messages import Arrival, Delivery, NotNow
from tags import tag

ANSWERED = ("classified", "unknown")


class EventNotPublished(NotNow):
    """EventBridge did not take the event."""


def unanswered(status: str, code: str, message: str) -> dict[str, Any]:
    """Return the outcome of an object that gets no label."""
    return {
        "status": status,
        "label": None,
        "probability": None,
        "predictions": [],
        "reason": {"code": code, "message": message},
        "model": None,
    }


def described(arrival: Arrival, delivery: Delivery, endpoint: str) -> dict[str, Any]:
    """Return what every result says of its object, and by which message it came."""
    return {
        "version": 1,
        "id": arrival.id,
        "bucket": arrival.bucket,
        "key": arrival.key,
        "object_version": arrival.object_version,
        "message_id": delivery.origin,
        "bytes": arrival.size,
        "content_type": None,
        "endpoint": endpoint,
        "metadata": {},
        "timings_ms": {},
        "answered_at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }


def is_by(delivery: Delivery, result: dict[str, Any]) -> bool:
    """Whether this message wrote the result. One from before that was recorded is taken for anybody's."""
    return result.get("message_id", delivery.origin) == delivery.origin


@dataclass(frozen=True)
class Results:
    s3: Any
    events: Any
    tags_objects: bool

    def earlier(self, arrival: Arrival) -> dict[str, Any] | None:
        try:
            return documents.read(self.s3, f"s3://{arrival.bucket}/{arrival.result_key}", "classification")
        except documents.DocumentMissing:
            return None

    def conclude(self, arrival: Arrival, delivery: Delivery, result: dict[str, Any]) -> None:
        """Write the result unless there is one, and announce it if it is this message's. Raises IN_THE_WAY."""
        if self._write_once(arrival, result):
            self.announce(arrival, result)
        elif (earlier := self.earlier(arrival)) and is_by(delivery, earlier):
            self.announce(arrival, earlier)  # the reply to its first writing was lost, or it is given up a second time

    def announce(self, arrival: Arrival, result: dict[str, Any]) -> None:
        """Tell of a result that is written: by the object's tags where they are asked for, and by an event.

        The event's id is stable, so that whoever gets it twice can tell. Raises one of IN_THE_WAY.
        """
        if self.tags_objects:
            tag(self.s3, result, arrival.version_id)
        entry = {
            "Source": "kelpie",
            "DetailType": "ImageClassified" if result["status"] in ANSWERED else "ImageRejected",
            "Detail": json.dumps(result, ensure_ascii=False),
        }
        try:
            response = self.events.put_events(Entries=[entry])
        except ClientError as error:
            raise EventNotPublished(f"{result['key']}: {error}") from error
        if response["FailedEntryCount"]:
            raise EventNotPublished(f"{result['key']}: {response['Entries'][0]}")

    def _write_once(self, arrival: Arrival, result: dict[str, Any]) -> bool:
        """Write the result unless there is one; return whether it was written."""
        document = documents.checked(result, "classification", arrival.result_key)
        try:
            self.s3.put_object(
                Bucket=arrival.bucket,
                Key=arrival.result_key,
                Body=json.dumps(document, ensure_ascii=False).encode(),
                ContentType="application/json",
                IfNoneMatch="*",
            )
        except ClientError as error:
            # 409 ConditionalRequestConflict is raised on: another write is under way, and the message comes again.
            if error.response["Error"]["Code"] != "PreconditionFailed":
                raise
            return False
        return True
