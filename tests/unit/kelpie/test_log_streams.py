"""The newest lines of many log streams, and how little is read to find them."""

import time
from itertools import pairwise

import pytest

from kelpie import log_streams
from kelpie.log_streams import TRAINING_JOBS_LOG_GROUP, JobLogs

HOUR_MS = 3_600_000
NOW_MS = round(time.time() * 1000)
"""CloudWatch takes no line that is weeks old."""
FUNCTION_LOG_GROUP = "/aws/lambda/kelpie-plan-run"


@pytest.fixture(autouse=True)
def groups(stack):
    for group in (TRAINING_JOBS_LOG_GROUP, FUNCTION_LOG_GROUP):
        stack.client("logs").create_log_group(logGroupName=group)


@pytest.fixture
def read(stack):
    """The streams of which lines are asked, one a request, as they are read."""
    streams = []
    event = "before-parameter-build.cloudwatch-logs.GetLogEvents"
    stack.client("logs").meta.events.register(event, lambda params, **_: streams.append(params["logStreamName"]))
    return streams


def write(stack, stream, hours_ago, lines, group=TRAINING_JOBS_LOG_GROUP):
    """Write lines `stream 0`, `stream 1`, ... a millisecond apart, the first so many hours ago."""
    logs, begun = stack.client("logs"), NOW_MS - round(hours_ago * HOUR_MS)
    logs.create_log_stream(logGroupName=group, logStreamName=stream)
    events = [{"timestamp": begun + number, "message": f"{stream} {number}"} for number in range(lines)]
    logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=events)


@pytest.mark.parametrize("group", [TRAINING_JOBS_LOG_GROUP, FUNCTION_LOG_GROUP])
def test_streams_that_ended_long_before_the_newest_lines_are_not_read(stack, read, group):
    for stream, hours_ago in (("job-a/1", 30), ("job-b/1", 20), ("job-c/1", 10)):
        write(stack, stream, hours_ago, 50, group)
    lines = log_streams.newest(stack, group, "job-" if group == TRAINING_JOBS_LOG_GROUP else "", 20)
    assert [line.message for line in lines] == [f"job-c/1 {number}" for number in range(30, 50)]
    assert set(read) == {"job-c/1"}


def test_lines_of_streams_that_were_written_to_together_come_by_time(stack):
    for stream in ("job-a/1", "job-b/1", "other/1"):
        write(stack, stream, 1, 50)
    lines = log_streams.newest(stack, TRAINING_JOBS_LOG_GROUP, "job-", 40)
    assert len(lines) == 40
    assert {line.stream for line in lines} == {"job-a/1", "job-b/1"}
    assert all(earlier.at <= later.at for earlier, later in pairwise(lines))
    assert lines[-1].message.endswith(" 49")


def test_a_stream_that_may_be_newer_than_it_says_is_read(stack, read):
    """CloudWatch is late to say when a stream was written to last."""
    write(stack, "job-a/1", 10.5, 50)
    write(stack, "job-b/1", 10, 50)
    log_streams.newest(stack, TRAINING_JOBS_LOG_GROUP, "job-", 20)
    assert set(read) == {"job-a/1", "job-b/1"}


def test_all_there_is_comes_where_there_is_less_or_more_than_a_request_brings(stack, monkeypatch):
    monkeypatch.setattr(log_streams, "MOST_AT_ONCE", 20)
    write(stack, "job-a/1", 10, 50)
    write(stack, "job-b/1", 1, 10)
    lines = log_streams.newest(stack, TRAINING_JOBS_LOG_GROUP, "job-", 1000)
    every = [*(f"job-a/1 {number}" for number in range(50)), *(f"job-b/1 {number}" for number in range(10))]
    assert [line.message for line in lines] == every


def test_a_log_group_that_is_not_there_yet_has_no_lines(stack):
    assert log_streams.newest(stack, "/aws/sagemaker/Endpoints/kelpie", "", 20) == []


def test_whoever_follows_a_job_gets_each_line_once(stack):
    write(stack, "job/1", 1, 3)
    following = JobLogs(stack, "job")
    assert [line.message for line in following.read()] == ["job/1 0", "job/1 1", "job/1 2"]
    assert following.read() == []
    write(stack, "job/2", 0.5, 1)
    assert [line.message for line in following.read()] == ["job/2 0"]
