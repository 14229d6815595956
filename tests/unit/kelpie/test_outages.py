"""What becomes of a command while AWS does not answer, throttles or refuses."""

import io
import sys
import time

import boto3
import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
    UnauthorizedSSOTokenError,
)
from rich.console import Console

from kelpie import command, execution, progress, watch
from kelpie.commands import runs
from kelpie.log_streams import TRAINING_JOBS_LOG_GROUP, JobLogs
from kelpie.stack import Stack

ARN = "arn:aws:states:us-east-1:123456789012:execution:kelpie:one"
BEGUN = 1000.0
NO_NETWORK = EndpointConnectionError(endpoint_url="https://states")


def refusal(code, status=400):
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "DescribeExecution")


PASSING = [
    NO_NETWORK,
    ConnectTimeoutError(endpoint_url="https://states"),
    ReadTimeoutError(endpoint_url="https://states"),
    refusal("ThrottlingException"),
    refusal("InternalFailure", 500),
]
LASTING = [refusal("ExpiredTokenException"), refusal("AccessDeniedException"), UnauthorizedSSOTokenError()]


class Clock:
    def __init__(self, monkeypatch):
        self.now = BEGUN
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def look(monkeypatch, clock):  # noqa: ARG001 - no second is waited for
    """Have looks at a run end as given, each a reading or an error, the last for ever."""

    def look(*given):
        looks = list(given)

        class Follower:
            def __init__(self, *_):
                pass

            def read(self):
                came = looks.pop(0) if len(looks) > 1 else looks[0]
                if isinstance(came, Exception):
                    raise came
                return came

        monkeypatch.setattr(watch, "Follower", Follower)

    return look


@pytest.fixture
def ended(monkeypatch):
    """Run the command and return its exit code."""

    def ended(*arguments):
        monkeypatch.setattr(sys, "argv", ["kelpie", *arguments])
        with pytest.raises(SystemExit) as at_the_end:
            command.main()
        return at_the_end.value.code

    return ended


@pytest.fixture
def attach(monkeypatch, ended):
    def attach(is_local):
        monkeypatch.setattr(runs, "_attach", lambda *_: (stack_of(is_local), ARN))
        return ended("run", "--attach", "one", "--stack", "kelpie")

    return attach


def reading(status):
    return progress.Progress({"status": status, "executionArn": ARN}, [], [], {}, [], [], [])


def stack_of(is_local):
    return Stack(boto3.Session(region_name="us-east-1"), "kelpie", "CREATE_COMPLETE", {}, is_local)


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_what_passes_is_waited_out_and_said_once(look, error):
    look(*[error] * 20, over := reading("SUCCEEDED"))
    console = Console(file=io.StringIO(), width=1000, record=True)
    assert watch.follow(stack_of(is_local=False), [ARN], console) == [over]
    assert console.export_text().count("it is asked again") == 1


def test_each_trouble_has_the_whole_time(look, clock):
    look(*[NO_NETWORK] * 20, reading("RUNNING"), *[NO_NETWORK] * 20, over := reading("SUCCEEDED"))
    assert watch.follow(stack_of(is_local=False), [ARN], Console(file=io.StringIO())) == [over]
    assert clock.now - BEGUN > watch.PATIENCE_SECONDS


@pytest.mark.parametrize("error", [PASSING[0], *LASTING], ids=repr)
def test_the_run_goes_on_and_how_to_follow_it_is_said(look, attach, clock, capsys, error):
    look(error)
    assert attach(is_local=False) == 3
    told = capsys.readouterr().err
    assert "the run goes on. Follow it: kelpie run --attach one --stack kelpie" in told
    assert "kelpie up" not in told
    assert (clock.now - BEGUN > watch.PATIENCE_SECONDS) == (error in PASSING)


def test_a_file_that_cannot_be_used_is_said_in_one_line(ended, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("KELPIE_HOME", str(tmp_path / "file"))
    assert ended("down") == 2
    assert capsys.readouterr().err == f"kelpie: {tmp_path}/file/cloud.json: Not a directory\n"


def test_an_empty_name_is_no_data_set(ended, capsys):
    assert ended("run", "") == 2
    assert "needs a data set" in capsys.readouterr().err


def test_a_local_cloud_that_is_gone_is_not_waited_for(look, attach, clock, capsys):
    look(NO_NETWORK)
    assert attach(is_local=True) == 3
    assert "run `kelpie up`, then `kelpie status`" in capsys.readouterr().err
    assert clock.now == BEGUN


def test_offline_a_stack_is_said_not_to_answer(monkeypatch, capsys, ended):
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    assert ended("status", "--stack", "kelpie") == 3
    assert "the cloud does not answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NO_NETWORK, "the cloud does not answer"),
        (refusal("ThrottlingException"), "the cloud refuses"),
        (refusal("ExpiredToken"), "the cloud refuses"),
        (S3UploadFailedError("Failed to upload"), "the cloud refuses"),
        (NoCredentialsError(), "AWS cannot be asked"),
    ],
    ids=repr,
)
def test_whatever_asks_in_vain_ends_with_3_and_in_a_line(monkeypatch, capsys, ended, error, said):
    def raises(_stack_name):
        raise error

    monkeypatch.setattr(runs, "connect", raises)
    assert ended("status") == 3
    told = capsys.readouterr().err
    assert told.startswith(f"kelpie: {said}")
    assert told.count("\n") == 1


class History:
    """GetExecutionHistory of so many events."""

    def __init__(self, count):
        self.ids, self.asked = list(range(1, count + 1)), 0

    def get_paginator(self, _operation):
        return self

    def paginate(self, reverseOrder, PaginationConfig, **_):  # noqa: N803 - AWS's names
        assert reverseOrder
        ids, size = self.ids[::-1], PaginationConfig["PageSize"]
        for start in range(0, len(ids), size):
            self.asked += 1
            yield {"events": [{"id": number} for number in ids[start : start + size]]}


@pytest.mark.parametrize("new", [0, 1, 49, 50, 51, 120])
def test_of_a_history_only_what_is_new_is_read(monkeypatch, new):
    history = History(1200)
    stack = stack_of(is_local=False)
    monkeypatch.setattr(Stack, "client", lambda *_: history)
    known = execution.history(stack, ARN)
    assert [event["id"] for event in known] == history.ids
    history.ids += range(1201, 1201 + new)
    history.asked = 0
    assert [event["id"] for event in execution.history(stack, ARN, known)] == history.ids
    assert history.asked == new // 50 + 1


def test_lines_that_were_read_before_an_error_are_not_lost(stack):
    logs = stack.client("logs")
    logs.create_log_group(logGroupName=TRAINING_JOBS_LOG_GROUP)
    for stream in ("job/1", "job/2"):
        logs.create_log_stream(logGroupName=TRAINING_JOBS_LOG_GROUP, logStreamName=stream)
        event = {"timestamp": round(time.time() * 1000), "message": stream}
        logs.put_log_events(logGroupName=TRAINING_JOBS_LOG_GROUP, logStreamName=stream, logEvents=[event])
    away = [True]

    def refuse(params, **_):
        if params["logStreamName"] == "job/2" and away:
            away.pop()
            raise NO_NETWORK

    logs.meta.events.register("before-parameter-build.cloudwatch-logs.GetLogEvents", refuse)
    following = JobLogs(stack, "job")
    with pytest.raises(EndpointConnectionError):
        following.read()
    assert [line.message for line in following.read()] == ["job/1", "job/2"]
    assert following.read() == []


def test_trials_that_could_not_be_read_after_tuning_are_read_the_next_time(monkeypatch):
    answers = [["a trial"], NO_NETWORK]

    def trials(*_):
        answer = answers.pop()
        if isinstance(answer, Exception):
            raise answer
        return answer

    visit = execution.StateVisit(progress.TUNING_STATE, "entered", "left")
    monkeypatch.setattr(execution, "trials", trials)
    follower = progress.Follower(stack_of(is_local=False), ARN)
    with pytest.raises(EndpointConnectionError):
        follower._read_trials([visit])
    follower._read_trials([visit])
    assert follower._trials == ["a trial"]
