"""A job's log stream in CloudWatch Logs, written in batches as the lines come."""

import logging
import threading
import time
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

logger = logging.getLogger(__name__)

# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html
MOST_EVENTS = 10_000
MOST_BYTES = 1_048_576
BYTES_BESIDE_MESSAGE = 26


class LogStream:
    """`write` is for any thread, `flush` for one. A role that may not write has no log; the job goes on."""

    def __init__(self, client: Any, group: str, stream: str):
        self._client = client
        self._group = group
        self._stream = stream
        self._lines: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._created = False
        self._refused = False

    def write(self, line: str) -> None:
        event = {"timestamp": int(time.time() * 1000), "message": line or " "}  # a message has at least one character
        with self._lock:
            self._lines.append(event)

    def flush(self) -> None:
        with self._lock:
            lines, self._lines = self._lines, []
        if self._refused or (self._created and not lines):
            return
        try:
            if not self._created:
                self._create()
            for batch in _batches(lines):  # none at first: a job that prints nothing has an empty stream
                self._client.put_log_events(logGroupName=self._group, logStreamName=self._stream, logEvents=batch)
        except (ClientError, BotoCoreError) as error:
            self._refused = True
            logger.warning("%s/%s: the log is lost: %s", self._group, self._stream, error)

    def _create(self) -> None:
        for create, names in (
            (self._client.create_log_group, {"logGroupName": self._group}),
            (self._client.create_log_stream, {"logGroupName": self._group, "logStreamName": self._stream}),
        ):
            try:
                create(**names)
            except ClientError as error:
                if error.response["Error"]["Code"] != "ResourceAlreadyExistsException":
                    raise
        self._created = True


def _batches(events: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    batches: list[list[dict[str, Any]]] = []
    size = 0
    for event in events:
        weight = len(event["message"].encode()) + BYTES_BESIDE_MESSAGE
        if not batches or (len(batches[-1]) == MOST_EVENTS or size + weight > MOST_BYTES):
            batches.append([])
            size = 0
        batches[-1].append(event)
        size += weight
    return batches
