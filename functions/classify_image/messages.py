"""Messages of the inbox's queue: what they speak of, and where they go when they cannot be answered."""

import hashlib
import json
import random
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

import botocore.exceptions
from aws_lambda_powertools import Logger

SHORTEST_DELAY_SECONDS, LONGEST_DELAY_SECONDS = 4, 900


class NotNow(Exception):
    """Nothing is wrong with the message: it is held back until what is in its way has passed."""


IN_THE_WAY = (NotNow, botocore.exceptions.ConnectionError, botocore.exceptions.HTTPClientError)
"""botocore's two, of which neither is the other: no connection came about, by a name that is not found, a closed port
or a certificate; or one broke or stayed silent. Whichever service it is, no image can be answered.
"""


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
    """A message as it came. origin: its id when it was first sent; receives: how often it came since it was last sent,
    this time counted; held: how often it was held back.
    """

    identifier: str
    origin: str
    body: str
    receives: int
    held: int

    @property
    def came_before(self) -> bool:
        return self.receives > 1 or self.held > 0


def parse(record: dict[str, Any]) -> Delivery:
    attributes = {name: told["stringValue"] for name, told in record.get("messageAttributes", {}).items()}
    identifier = record["messageId"]
    return Delivery(
        identifier,
        attributes.get("Origin", identifier),
        record["body"],
        int(record["attributes"]["ApproximateReceiveCount"]),
        int(attributes.get("Held", 0)),
    )


def in_order(deliveries: list[Delivery]) -> list[Delivery]:
    """What came before goes last, in another order each time: one of them may have ended the function."""
    new = [delivery for delivery in deliveries if delivery.receives == 1]
    seen = [delivery for delivery in deliveries if delivery.receives > 1]
    return new + random.sample(seen, len(seen))


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


def spoken_of(delivery: Delivery) -> list[Arrival]:
    return arrivals(json.loads(delivery.body))


@dataclass(frozen=True)
class Queues:
    """The inbox's queue, and the one for what was given up."""

    sqs: Any
    inbox_url: str
    dead_letters_url: str

    def hold(self, delivery: Delivery, why: Exception) -> None:
        """Send the message again with a delay that grows; this one is then done with. If that fails there are two."""
        delay = min(SHORTEST_DELAY_SECONDS * 2**delivery.held, LONGEST_DELAY_SECONDS)
        Logger().warning("held back", extra={"message_id": delivery.origin, "held": delivery.held, "why": str(why)})
        self.sqs.send_message(
            QueueUrl=self.inbox_url,
            MessageBody=delivery.body,
            DelaySeconds=random.randint(delay // 2, delay),
            MessageAttributes={
                "Held": {"DataType": "Number", "StringValue": str(min(delivery.held + 1, 99))},
                "Origin": {"DataType": "String", "StringValue": delivery.origin},
            },
        )

    def bury(self, delivery: Delivery) -> None:
        self.sqs.send_message(QueueUrl=self.dead_letters_url, MessageBody=delivery.body)
