"""Jobs of several instances: processes that find each other, whose output becomes one, and that end together."""

import io
import json
import socket
import tarfile
from pathlib import Path
from typing import Any

import pytest

from localcloud.containers.environments import Environments
from localcloud.containers.images import Images
from localcloud.containers.pytorch import pytorch_image
from localcloud.sagemaker.service import SageMaker
from localcloud.sagemaker.training_run import LOG_GROUP
from tests.waiting import PATIENCE_SECONDS, wait_for

SHARE = """
import json, os, pathlib, socket
hosts, me = json.loads(os.environ['SM_HOSTS']), os.environ['SM_CURRENT_HOST']
resources = json.loads(pathlib.Path('input/config/resourceconfig.json').read_text())
assert (resources['hosts'], resources['current_host']) == (hosts, me), resources
assert {socket.gethostbyname(host) for host in hosts} == {'127.0.0.1'}
found = sorted(path.name for path in pathlib.Path(os.environ['SM_CHANNEL_DATASET']).iterdir())
model = pathlib.Path(os.environ['SM_MODEL_DIR'])
(model / 'shared').write_text(me)
(model / me).write_text(' '.join(found))
(pathlib.Path(os.environ['SM_OUTPUT_DATA_DIR']) / f'{me}.log').write_text('done')
print('accuracy=0.5', me)
"""
GREET = """
import json, os, socket, sys, time
hosts, me, port = json.loads(os.environ['SM_HOSTS']), os.environ['SM_CURRENT_HOST'], int(os.environ['SM_HP_PORT'])
if me == hosts[0]:
    with socket.create_server((me, port)) as server:
        connection, _ = server.accept()
        print('heard', connection.recv(100).decode())
else:
    for _ in range(6000):
        try:
            with socket.create_connection((hosts[0], port)) as connection:
                connection.sendall(me.encode())
                break
        except ConnectionRefusedError:
            time.sleep(0.05)
"""
ONE_FAILS = """
import os, sys, time
if os.environ['SM_CURRENT_HOST'] == 'algo-2':
    sys.exit('the second one cannot go on')
time.sleep(3600)
"""


@pytest.fixture
def run(sagemaker, job):
    def run(name: str, script: str, count: int = 2, **members: Any) -> dict[str, Any]:
        request = job(name, script, **members)
        request["ResourceConfig"]["InstanceCount"] = count
        sagemaker.call("CreateTrainingJob", request)
        return sagemaker.training_jobs.wait(name, PATIENCE_SECONDS)

    return run


def channel(distribution: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": "s3://the-bucket/data/", "S3DataDistributionType": distribution}
    return {"ChannelName": "dataset", "DataSource": {"S3DataSource": source}}


def test_every_instance_has_its_own_folder_and_all_leave_one_model(run, outside):
    for name in ("a", "b", "c"):
        outside.put(f"data/{name}", name)
    described = run("shared", SHARE, InputDataConfig=[channel("ShardedByS3Key")])
    assert described["TrainingJobStatus"] == "Completed", described["FailureReason"]
    assert outside.unpacked("jobs/shared/output/model.tar.gz") == {
        "algo-1": b"a c",
        "algo-2": b"b",
        "shared": b"algo-1",
    }
    assert outside.unpacked("jobs/shared/output/output.tar.gz").keys() == {"algo-1.log", "algo-2.log"}
    logs = outside.client("logs", None)
    streams = logs.describe_log_streams(logGroupName=LOG_GROUP)["logStreams"]
    assert [stream["logStreamName"].rpartition("-")[0] for stream in streams] == ["shared/algo-1", "shared/algo-2"]


def test_data_that_is_replicated_is_with_every_instance(run, outside):
    outside.put("data/a", "a")
    members = {"OutputDataConfig": {"S3OutputPath": "s3://the-bucket/jobs", "CompressionType": "NONE"}}
    assert (
        run("replicated", SHARE, InputDataConfig=[channel("FullyReplicated")], **members)["TrainingJobStatus"]
        == "Completed"
    )
    assert outside.read("jobs/replicated/output/model/algo-1") == outside.read("jobs/replicated/output/model/algo-2")


def test_instances_reach_each_other_by_name(run, outside):
    parameters = {"script": json.dumps(GREET), "port": str(free_port())}
    described = run("greeting", GREET, HyperParameters=parameters)
    assert described["TrainingJobStatus"] == "Completed", described["FailureReason"]
    assert outside.lines() == ["heard algo-2"]


def test_the_failure_of_one_ends_all(run):
    described = run("half", ONE_FAILS)
    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"] == "AlgorithmError: the second one cannot go on, exit code: 1"


def test_a_stop_ends_all(sagemaker, outside, job):
    request = job("stopped", "import time; print('ready', flush=True); time.sleep(600)")
    request["ResourceConfig"]["InstanceCount"] = 3
    sagemaker.call("CreateTrainingJob", request)
    wait_for(lambda: outside.lines() == ["ready"] * 3, outside.lines)
    sagemaker.call("StopTrainingJob", {"TrainingJobName": "stopped"})
    assert sagemaker.training_jobs.wait("stopped", PATIENCE_SECONDS)["TrainingJobStatus"] == "Stopped"


@pytest.mark.slow
def test_torchrun_over_gloo(outside, job, tmp_path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(Path(__file__).with_name("distributed_job.py"), "train.py")
    request = job("ddp", "", AlgorithmSpecification={"TrainingImage": "pytorch:2.14", "TrainingInputMode": "File"})
    request["HyperParameters"] = {
        "sagemaker_program": '"train.py"',
        "sagemaker_submit_directory": json.dumps(outside.put("code/sourcedir.tar.gz", packed.getvalue())),
        "sagemaker_torch_distributed_enabled": "true",
    }
    request["ResourceConfig"]["InstanceCount"] = 2
    request["StoppingCondition"] = {"MaxRuntimeInSeconds": 3600}
    images = Images({"pytorch": pytorch_image(Environments())})
    service = SageMaker(tmp_path / "home", images, outside.ports(), "us-east-1", "123456789012")
    try:
        service.call("CreateTrainingJob", request)
        described = service.training_jobs.wait("ddp", 3 * PATIENCE_SECONDS)
    finally:
        service.close()
    assert described["TrainingJobStatus"] == "Completed", described["FailureReason"]
    assert outside.unpacked("jobs/ddp/output/model.tar.gz") == {
        "rank-0": b"3.0 of 2 on algo-1",
        "rank-1": b"3.0 of 2 on algo-2",
    }


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
