"""The life of a local cloud: it starts, stops, crashes and starts again, and leaves nothing behind."""

import fcntl
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from localcloud import AlreadyRunning, LocalCloud, NotRunning, PortInUse, StartFailed
from localcloud.cloud import ACCOUNT_ID, HomeLock

SLEEPS = "import subprocess, time\ndef handler(event, context):\n subprocess.Popen(['sleep', '899'])\n time.sleep(900)"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def started(home: Path, port: int):
    cloud = LocalCloud(home)
    cloud.start(port)
    yield cloud
    cloud.stop()


def test_start_and_stop(home, port):
    cloud = LocalCloud(home)
    cloud.stop()
    assert not cloud.running()
    cloud.start(port)
    assert cloud.running()
    assert LocalCloud(home).running()
    identity = cloud.session().client("sts").get_caller_identity()
    assert identity["Account"] == ACCOUNT_ID
    LocalCloud(home).stop()
    assert not cloud.running()
    with pytest.raises(NotRunning):
        cloud.session()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no 127.0.0.2")
def test_it_listens_on_127_0_0_1_only(started):
    with socket.create_server(("127.0.0.2", started.port)):
        pass  # would be in use if the server listened on all addresses


def test_a_second_start_names_the_first(started):
    with pytest.raises(AlreadyRunning, match=str(started.port)) as refused:
        LocalCloud(started.home).start(started.port)
    assert refused.value.pid == server_of(started.home)


def test_a_port_in_use_is_named(home):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        with pytest.raises(PortInUse, match=f"port {taken}.*choose another port"):
            LocalCloud(home).start(taken)
    assert not LocalCloud(home).running()


def test_a_failed_start_shows_the_log(home, port):
    home.mkdir()
    (home / "lambda").write_text("in the way of a folder")
    with pytest.raises(StartFailed, match="Errno"):
        LocalCloud(home).start(port)
    assert not LocalCloud(home).running()


def test_a_server_that_has_not_written_its_record_yet_is_waited_for(tmp_path):
    server = HomeLock(tmp_path)
    assert server.acquire()
    writing = threading.Timer(0.3, server.write_record, (os.getpid(), 4566))
    writing.start()
    assert HomeLock(tmp_path).read_record() == {"pid": os.getpid(), "port": 4566}
    writing.join()


def test_who_looks_is_not_taken_for_a_server_and_is_outwaited_by_one(tmp_path):
    with (tmp_path / "cloud.lock").open("w") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        assert not HomeLock(tmp_path).held()
        leaving = threading.Timer(0.3, fcntl.flock, (looking, fcntl.LOCK_UN))
        leaving.start()
        assert HomeLock(tmp_path).acquire()
        leaving.join()


def test_two_clouds_at_once_are_apart(started, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    second = LocalCloud(tmp_path / "second")
    second.start(port)
    try:
        started.session().client("s3").create_bucket(Bucket="only-here")
        assert second.session().client("s3").list_buckets()["Buckets"] == []
    finally:
        second.stop()
    assert started.session().client("s3").list_buckets()["Buckets"][0]["Name"] == "only-here"


def test_state_survives_a_restart(home, port):
    cloud = LocalCloud(home)
    cloud.start(port)
    session = cloud.session()
    session.client("s3").create_bucket(Bucket="kept")
    session.client("s3").put_object(Bucket="kept", Key="key", Body=b"kept too")
    session.client("sqs").create_queue(QueueName="kept")
    cloud.stop()
    cloud.start(port)
    try:
        assert session.client("s3").get_object(Bucket="kept", Key="key")["Body"].read() == b"kept too"
        assert session.client("sqs").get_queue_url(QueueName="kept")
    finally:
        cloud.stop()


def test_what_runs_at_a_stop_has_failed_after_it(home, port, machines_on):
    cloud = LocalCloud(home)
    cloud.start(port)
    states = {
        "Try": {
            "Type": "Parallel",
            "Branches": [{"StartAt": "Rest", "States": {"Rest": {"Type": "Wait", "Seconds": 60, "End": True}}}],
            "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}],
            "End": True,
        },
        "Caught": {"Type": "Succeed"},
    }
    machines = machines_on(cloud.session())
    execution = machines.start({"QueryLanguage": "JSONata", "StartAt": "Try", "States": states})
    cloud.stop()
    cloud.start(port)
    try:
        ended = machines.end_of(execution)
        assert (ended["status"], ended["error"]) == ("FAILED", "States.ServiceRestart")
        assert "was stopped" in ended["cause"]
    finally:
        cloud.stop()


def test_a_crash_loses_the_last_seconds_at_most(home, port, until):
    cloud = LocalCloud(home)
    cloud.start(port)
    cloud.session().client("sqs").create_queue(QueueName="kept")
    saved = home / "state" / "sqs.json"
    until(lambda: saved.exists() and "kept" in saved.read_text())
    os.kill(server_of(home), signal.SIGKILL)
    until(lambda: not cloud.running())
    cloud.start(port)
    try:
        assert cloud.session().client("sqs").get_queue_url(QueueName="kept")
    finally:
        cloud.stop()


def test_a_proxy_is_not_asked_for_the_way_to_this_machine(home, port, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    cloud = LocalCloud(home)
    cloud.start(port)
    try:
        assert cloud.session().client("sts").get_caller_identity()["Account"] == ACCOUNT_ID
    finally:
        cloud.stop()


def test_any_client_reaches_it_by_the_environment(started):
    given = {**os.environ, "AWS_PROFILE": "", "AWS_SESSION_TOKEN": "of-the-real-aws", **started.environment}
    del given["AWS_PROFILE"]
    command = [sys.executable, "-m", "awscli", "sts", "get-caller-identity"]
    answer = subprocess.run(command, env=given, capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout)["Account"] == ACCOUNT_ID


def test_a_session_ignores_the_users_configuration(started, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-the-real-aws")
    assert started.session().client("sts").get_caller_identity()["Account"] == ACCOUNT_ID


def test_the_users_identity_stays_outside(home, port, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "the-users-own")
    cloud = LocalCloud(home)
    cloud.start(port)
    try:
        environment = ps("-ww", "-E" if sys.platform == "darwin" else "e", "-o", "command=", "-p", str(server_of(home)))
        assert "LANG" in environment or "PATH" in environment
        assert "the-users-own" not in environment
    finally:
        cloud.stop()


@pytest.mark.parametrize("end", ["kill -9", "stop"])
def test_nothing_outlives_the_cloud(home, port, until, end):
    cloud = LocalCloud(home)
    cloud.start(port)
    session = cloud.session()
    start_everything(session)
    server = server_of(home)
    awaited = {"lambda_worker", "sleep 899", "time.sleep(898)"}
    until(lambda: awaited <= names_in(descendants(server)), pause_seconds=0.2)
    processes = descendants(server)
    if end == "stop":
        cloud.stop()
    else:
        os.kill(server, signal.SIGKILL)
    until(lambda: not processes.keys() & all_processes().keys(), pause_seconds=0.2)
    assert not cloud.running()
    cloud.start(port)
    cloud.stop()


def start_everything(session) -> None:
    """A function in the middle of an invocation, with a child, and a training job."""
    role = session.client("iam").create_role(RoleName="all", AssumeRolePolicyDocument=trust())["Role"]["Arn"]
    allowed = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    session.client("iam").put_role_policy(RoleName="all", PolicyName="all", PolicyDocument=json.dumps(allowed))
    session.client("s3").create_bucket(Bucket="jobs")
    session.client("lambda").create_function(
        FunctionName="sleeps",
        Runtime="python3.13",
        Handler="app.handler",
        Role=role,
        Timeout=900,
        Code={"ZipFile": zip_of(SLEEPS)},
    )
    session.client("lambda").invoke(FunctionName="sleeps", InvocationType="Event")
    session.client("sagemaker").create_training_job(
        TrainingJobName="sleeps",
        AlgorithmSpecification={"TrainingImage": "registry/tiny:latest", "TrainingInputMode": "File"},
        RoleArn=role,
        HyperParameters={"script": "import time; time.sleep(898)"},
        OutputDataConfig={"S3OutputPath": "s3://jobs/jobs"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 3600},
    )


def trust() -> str:
    services = ["lambda.amazonaws.com", "sagemaker.amazonaws.com"]
    return json.dumps(
        {"Statement": [{"Effect": "Allow", "Principal": {"Service": services}, "Action": "sts:AssumeRole"}]}
    )


def zip_of(source: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        packed.writestr("app.py", source)
    return content.getvalue()


def server_of(home: Path) -> int:
    return json.loads((home / "cloud.json").read_text())["pid"]


def names_in(processes: dict[int, str]) -> set[str]:
    """Which of the processes that the test waits for are there."""
    commands = "\n".join(processes.values())
    return {name for name in ("lambda_worker", "sleep 899", "time.sleep(898)") if name in commands}


def descendants(ancestor: int) -> dict[int, str]:
    """Process ids and command lines of a process's children, and theirs."""
    processes = all_processes()
    found = {ancestor}
    while more := {pid for pid, (parent, _) in processes.items() if parent in found} - found:
        found |= more
    return {pid: processes[pid][1] for pid in found - {ancestor}}


def all_processes() -> dict[int, tuple[int, str]]:
    """Process id to parent and command line, without those that have ended and are only not yet collected."""
    lines = [line.split(None, 3) for line in ps("-axww", "-o", "pid=,ppid=,stat=,command=").splitlines()]
    return {int(pid): (int(parent), *command) for pid, parent, status, *command in lines if not status.startswith("Z")}


def ps(*arguments: str) -> str:
    return subprocess.run(["ps", *arguments], capture_output=True, text=True, check=True).stdout
