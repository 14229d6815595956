"""Lines of CloudWatch's log streams: of a job the new ones each time, or the newest that there are."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kelpie.stack import Stack

TRAINING_JOBS_LOG_GROUP = "/aws/sagemaker/TrainingJobs"
MOST_AT_ONCE = 10_000
"""Of GetLogEvents."""
LAG_MS = 3_600_000
"""How far a stream's lastEventTimestamp may be behind: typically less than an hour, says the reference of LogStream."""


@dataclass(frozen=True)
class LogLine:
    at: datetime.datetime
    stream: str
    message: str


class JobLogs:
    """Follows a job's log streams: each `read` returns the new lines."""

    def __init__(self, stack: Stack, job: str):
        self._logs = stack.client("logs")
        self._prefix = f"{job}/"
        self._tokens: dict[str, str] = {}
        self._unread: list[LogLine] = []
        """By whoever follows: more than none only where reading was cut short."""

    def read(self) -> list[LogLine]:
        """Return the new lines by time. A log group that does not exist yet has none."""
        for stream in _streams(self._logs, TRAINING_JOBS_LOG_GROUP, logStreamNamePrefix=self._prefix):
            self._read_stream(stream["logStreamName"])
        lines, self._unread = self._unread, []
        return sorted(lines, key=lambda line: line.at)

    def _read_stream(self, stream: str) -> None:
        while True:
            token = self._tokens.get(stream)
            page = self._logs.get_log_events(
                logGroupName=TRAINING_JOBS_LOG_GROUP,
                logStreamName=stream,
                startFromHead=True,
                **({"nextToken": token} if token else {}),
            )
            self._unread += _lines(stream, page)
            self._tokens[stream] = page["nextForwardToken"]
            if page["nextForwardToken"] == token:
                return


def newest(stack: Stack, log_group: str, prefix: str, count: int) -> list[LogLine]:
    """Return by time the newest `count` lines of the streams whose name begins with `prefix`.

    Streams are read from their ends, the one that was written to last first, until no other may hold a newer line.
    """
    logs = stack.client("logs")
    lines: list[LogLine] = []
    for stream in _newest_streams(logs, log_group, prefix):
        since = _milliseconds(lines[0].at) if len(lines) == count else 0
        if _last_written(stream) + LAG_MS < since:
            break
        lines += _tail(logs, log_group, stream["logStreamName"], since, count)
        lines = sorted(lines, key=lambda line: line.at)[-count:]
    return lines


def _newest_streams(logs: Any, log_group: str, prefix: str) -> Iterator[dict[str, Any]]:
    """The service orders by time only where it is asked for all."""
    if not prefix:
        return _streams(logs, log_group, orderBy="LastEventTime", descending=True)
    return iter(sorted(_streams(logs, log_group, logStreamNamePrefix=prefix), key=_last_written, reverse=True))


def _streams(logs: Any, log_group: str, **chosen: Any) -> Iterator[dict[str, Any]]:
    """A log group that does not exist yet has none."""
    try:
        for page in logs.get_paginator("describe_log_streams").paginate(logGroupName=log_group, **chosen):
            yield from page["logStreams"]
    except logs.exceptions.ResourceNotFoundException:
        return


def _last_written(stream: dict[str, Any]) -> int:
    return int(stream.get("lastEventTimestamp") or stream["creationTime"])


def _tail(logs: Any, log_group: str, stream: str, since: int, count: int) -> list[LogLine]:
    """Return the last `count` lines of a stream, none of them before `since`, in milliseconds."""
    lines: list[LogLine] = []
    where: dict[str, Any] = {"logGroupName": log_group, "logStreamName": stream, "startTime": since}
    while len(lines) < count:
        page = logs.get_log_events(**where, startFromHead=False, limit=min(count - len(lines), MOST_AT_ONCE))
        lines = [*_lines(stream, page), *lines]
        if page["nextBackwardToken"] == where.get("nextToken"):
            break
        where["nextToken"] = page["nextBackwardToken"]
    return lines


def _lines(stream: str, page: dict[str, Any]) -> list[LogLine]:
    return [LogLine(_time(event["timestamp"]), stream, event["message"]) for event in page["events"]]


def _time(milliseconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.UTC)


def _milliseconds(at: datetime.datetime) -> int:
    return round(at.timestamp() * 1000)
