"""The life of a local cloud as a user sees it: nothing outlives `down`, a crash or kill -9."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys

import pytest

from tests.waiting import PATIENCE_SECONDS, wait_for

WITHOUT_CLOUD = (
    ("env",),
    ("run", "s3://kelpie/data/"),
    ("classify", "photo.jpg"),
    ("status",),
    ("logs",),
    ("stop", "one"),
    ("run", "--attach", "one"),
)


@pytest.mark.parametrize("arguments", WITHOUT_CLOUD, ids=lambda arguments: " ".join(arguments))
def test_without_up_every_command_says_to_run_it(kelpie, arguments):
    assert "`kelpie up`" in kelpie.refused(3, *arguments)


def test_what_up_prints_reaches_the_cloud_and_down_ends_everything(kelpie):
    printed = kelpie.ok("up")
    exports = [shlex.split(line) for line in printed.splitlines()]
    assert {line[0] for line in exports} == {"export"}
    variables = dict(line[1].split("=", 1) for line in exports)
    listed = subprocess.run(
        [sys.executable, "-m", "awscli", "stepfunctions", "list-state-machines"],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    assert [machine["name"] for machine in json.loads(listed.stdout)["stateMachines"]] == ["kelpie-train-and-deploy"]
    assert json.loads(kelpie.ok("env", "--json")) == variables

    status = json.loads(kelpie.ok("status", "--json"))
    assert status["cloud"]["endpoint_url"] == variables["AWS_ENDPOINT_URL"]
    assert (status["stack"]["status"], status["endpoint"], status["executions"]) == ("CREATE_COMPLETE", None, [])

    second = kelpie.refused(3, "up")
    assert f"on port {kelpie.port}" in second
    assert "kelpie down" in second

    kelpie.ok("down")
    kelpie.wait_until_alone()
    kelpie.ok("down")


def test_a_folder_below_the_one_with_the_cloud_finds_it(kelpie):
    kelpie.home.mkdir()
    below = kelpie.folder / "a" / "b"
    below.mkdir(parents=True)
    environment = {name: value for name, value in kelpie.environment.items() if name != "KELPIE_HOME"}
    done = subprocess.run(
        [sys.executable, "-m", "kelpie", "env"], cwd=below, env=environment, capture_output=True, text=True, check=False
    )
    assert f"no local cloud is up in {kelpie.home}" in done.stderr


def test_a_port_in_use_is_named(kelpie):
    with socket.socket() as other:
        other.bind(("127.0.0.1", kelpie.port))
        other.listen()
        line = kelpie.refused(3, "up")
    assert f"port {kelpie.port} is in use" in line
    assert "--port" in line


def test_after_kill_minus_9_of_the_cloud_nothing_is_left_and_up_works_again(kelpie):
    kelpie.ok("up")
    start_sleeping_job(kelpie)
    kill_cloud(kelpie)
    kelpie.wait_until_alone()

    assert "has died" in kelpie.refused(3, "status")
    kelpie.ok("up")
    assert json.loads(kelpie.ok("status", "--json"))["stack"]["status"] == "CREATE_COMPLETE"
    kelpie.ok("down")
    kelpie.wait_until_alone()


def test_down_clears_up_after_a_crash(kelpie):
    kelpie.ok("up")
    kill_cloud(kelpie)
    kelpie.wait_until_alone()
    kelpie.ok("down")
    assert "no local cloud is up" in kelpie.refused(3, "status")


def test_what_another_version_has_kept_is_refused_by_its_files_name(kelpie):
    record = kelpie.home / "sagemaker" / "records" / "endpoint" / "old.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"name": "old", "record": {"EndpointStatus": "InService"}}))
    said = kelpie("up")
    assert said.returncode == 3
    assert f"{record} was kept by another version" in said.stderr
    assert f"remove {kelpie.home}" in said.stderr
    assert "Traceback" not in said.stderr


def test_an_up_that_is_interrupted_leaves_nothing(kelpie):
    with kelpie.start("up") as process:
        wait_for(kelpie.cloud.running)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, said
    kelpie.wait_until_alone()


def kill_cloud(kelpie):
    """End the cloud's server as a crash would."""
    record = json.loads((kelpie.home / "cloud.json").read_text())
    os.kill(record["pid"], signal.SIGKILL)


def start_sleeping_job(kelpie):
    """Start a training job that sleeps, so that there is a job's process to be left behind."""
    session = kelpie.cloud.session()
    bucket = json.loads(kelpie.ok("status", "--json"))["stack"]["outputs"]["Bucket"]
    roles = [role["Arn"] for role in session.client("iam").list_roles()["Roles"] if "JobRole" in role["RoleName"]]
    session.client("sagemaker").create_training_job(
        TrainingJobName="sleeper",
        RoleArn=roles[0],
        AlgorithmSpecification={"TrainingImage": "local/tiny:1", "TrainingInputMode": "File"},
        HyperParameters={"script": "import time; time.sleep(600)"},
        OutputDataConfig={"S3OutputPath": f"s3://{bucket}/runs/"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 3600},
    )
    wait_for(lambda: any("time.sleep(600)" in line for line in kelpie.processes()), kelpie.processes)
