"""Training jobs of the tiny image: what they leave in S3, in the logs, in their description, and on this machine."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.validate import ParamValidator

from localcloud.isolated import can_isolate
from localcloud.sagemaker.validation import operation, serialise
from tests.local.sagemaker.training import WAIT, channel, refusal
from tests.waiting import PATIENCE_SECONDS, wait_for

ROLE = "arn:aws:iam::123456789012:role/training"


def test_a_job_from_its_channels_to_its_artifacts(run, outside, sagemaker):
    outside.put("data/train/a.txt", "one")
    outside.put("data/b.txt", "two")
    script = """
import os, pathlib
channel = pathlib.Path(os.environ['SM_CHANNEL_DATASET'])
print('found', *sorted(str(path.relative_to(channel)) for path in channel.rglob('*.*')))
for epoch in range(3):
    print(f'epoch {epoch} valid_accuracy=0.{5 + epoch}')
pathlib.Path(os.environ['SM_MODEL_DIR'], 'code').mkdir()
pathlib.Path(os.environ['SM_MODEL_DIR'], 'code', 'inference.py').write_text('pass')
pathlib.Path(os.environ['SM_OUTPUT_DATA_DIR'], 'history.json').write_text('[]')
"""
    algorithm = {
        "TrainingImage": "tiny",
        "TrainingInputMode": "File",
        "MetricDefinitions": [{"Name": "valid:accuracy", "Regex": "valid_accuracy=([0-9.]+)"}],
    }
    described = run(
        "whole",
        script,
        AlgorithmSpecification=algorithm,
        InputDataConfig=[channel("dataset", "s3://the-bucket/data")],
        Tags=[{"Key": "team", "Value": "sheep"}],
    )
    assert described["TrainingJobStatus"] == described["SecondaryStatus"] == "Completed"
    assert [transition["Status"] for transition in described["SecondaryStatusTransitions"]] == [
        "Starting",
        "Downloading",
        "Training",
        "Uploading",
        "Completed",
    ]
    assert described["ModelArtifacts"] == {"S3ModelArtifacts": "s3://the-bucket/jobs/whole/output/model.tar.gz"}
    assert described["BillableTimeInSeconds"] >= 1
    (metric,) = described["FinalMetricDataList"]
    assert (metric["MetricName"], metric["Value"]) == ("valid:accuracy", 0.7)
    assert [value for _, value in sagemaker.training_jobs.metric_history("whole")["valid:accuracy"]] == [0.5, 0.6, 0.7]
    assert outside.unpacked("jobs/whole/output/model.tar.gz") == {"code/inference.py": b"pass"}
    assert outside.unpacked("jobs/whole/output/output.tar.gz") == {"history.json": b"[]"}
    assert outside.log("whole")[:2] == ["found b.txt train/a.txt", "epoch 0 valid_accuracy=0.5"]
    assert {identity for identity in outside.identities if identity[1]} == {("s3", ROLE), ("logs", ROLE)}
    tags = sagemaker.call("ListTags", {"ResourceArn": described["TrainingJobArn"]})
    assert tags == {"Tags": [{"Key": "team", "Value": "sheep"}]}
    problems = ParamValidator().validate(described, operation("DescribeTrainingJob").output_shape)
    assert not problems.has_errors(), problems.generate_report()
    assert json.loads(serialise(described))["CreationTime"] == pytest.approx(time.time(), abs=PATIENCE_SECONDS)


def test_events_tell_every_change(run, outside):
    described = run("told", "print(1)")
    assert [(detail["TrainingJobStatus"], detail["SecondaryStatus"]) for _, detail, _ in outside.events] == [
        ("InProgress", "Starting"),
        ("InProgress", "Downloading"),
        ("InProgress", "Training"),
        ("InProgress", "Uploading"),
        ("Completed", "Completed"),
    ]
    kind, detail, resources = outside.events[-1]
    assert kind == "SageMaker Training Job State Change"
    assert resources == [detail["TrainingJobArn"]] == [described["TrainingJobArn"]]
    assert detail["CreationTime"] == int(described["CreationTime"].timestamp() * 1000)
    json.dumps(outside.events)


def test_log_and_metrics_are_there_while_the_job_runs(sagemaker, outside, job, until_job):
    algorithm = {
        "TrainingImage": "tiny",
        "TrainingInputMode": "File",
        "MetricDefinitions": [{"Name": "loss", "Regex": "loss=([0-9.]+)"}],
    }
    sagemaker.call(
        "CreateTrainingJob", job("live", "print('loss=0.5', flush=True)\n" + WAIT, AlgorithmSpecification=algorithm)
    )
    until_job("live", lambda described: "FinalMetricDataList" in described)
    wait_for(lambda: outside.log("live") == ["loss=0.5", "ready"], lambda: outside.log("live"))
    sagemaker.call("StopTrainingJob", {"TrainingJobName": "live"})
    assert sagemaker.training_jobs.wait("live", PATIENCE_SECONDS)["TrainingJobStatus"] == "Stopped"


def test_a_name_is_used_once(sagemaker, job, run):
    run("once", "print(1)")
    code, message = refusal(sagemaker, "CreateTrainingJob", job("once", "print(2)"))
    assert code == "ResourceInUse"
    assert message == (
        "Training job names must be unique within an AWS account and region, and a training job with this name already "
        "exists (arn:aws:sagemaker:us-east-1:123456789012:training-job/once)"
    )


def test_unknown_job(sagemaker):
    for action in ("DescribeTrainingJob", "StopTrainingJob"):
        assert refusal(sagemaker, action, {"TrainingJobName": "none"}) == (
            "ValidationException",
            "Requested resource not found.",
        )


@pytest.mark.parametrize(
    ("members", "code", "named"),
    [
        (
            {"ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 99}},
            "UnsupportedOperation",
            "InstanceCount=99",
        ),
        ({"ExperimentConfig": {"RunName": "r"}}, "UnsupportedOperation", "ExperimentConfig.RunName"),
        (
            {"InputDataConfig": [{**channel("x", "s3://b/k"), "InputMode": "FastFile"}]},
            "UnsupportedOperation",
            'InputDataConfig[].InputMode="FastFile"',
        ),
        ({"InputDataConfig": [channel("x", "s3://b/k")] * 2}, "ValidationException", "x, x"),
        ({"InputDataConfig": [channel("x", "https://b/k")]}, "ValidationException", "https://b/k"),
        ({"StoppingCondition": None}, "ValidationException", "StoppingCondition is required"),
        ({"EnableManagedSpotTraining": True}, "ValidationException", "Invalid MaxWaitTimeInSeconds"),
        ({"CheckpointConfig": {"S3Uri": "s3://b/c", "LocalPath": "/etc"}}, "ValidationException", "'/etc'"),
        ({"HyperParameters": {"x": "a\nb"}}, "ValidationException", "hyperParameters.x.member"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(sagemaker, job, members, code, named):
    refused, message = refusal(sagemaker, "CreateTrainingJob", job("refused", "print(1)", **members))
    assert refused == code
    assert named in message
    assert sagemaker.call("ListTrainingJobs", {}) == {"TrainingJobSummaries": []}


LOOKS_FOR_A_NETWORK = """
import os, socket
with socket.socket() as here:
    here.bind(("127.0.0.1", 0))
    here.listen()
    socket.create_connection(here.getsockname(), 5).close()
try:
    socket.create_connection(("192.0.2.1", 443), 5)
except OSError as error:
    print(error.strerror, "AWS_ROLE_FOR_TEST" in os.environ)
"""


@pytest.mark.skipif(not can_isolate(), reason="this machine has no network namespaces for its users")
def test_an_isolated_job_has_neither_a_network_nor_credentials(run, outside):
    described = run("isolated", LOOKS_FOR_A_NETWORK, EnableNetworkIsolation=True)
    assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
    assert outside.log("isolated") == ["Network is unreachable False"]


@pytest.mark.parametrize("available", [True, False])
def test_isolation_that_this_machine_cannot_give_is_refused(sagemaker, job, monkeypatch, available):
    monkeypatch.setattr("localcloud.sagemaker.training_requests.can_isolate", lambda: available)
    members = {"EnableNetworkIsolation": True}
    if available:
        members["ResourceConfig"] = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
    refused, message = refusal(sagemaker, "CreateTrainingJob", job("refused", "print(1)", **members))
    assert refused == "UnsupportedOperation"
    assert "EnableNetworkIsolation=true" in message


def test_spot_is_an_ordinary_run(run):
    stopping = {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 120}
    described = run("spot", "print(1)", EnableManagedSpotTraining=True, StoppingCondition=stopping)
    assert described["TrainingJobStatus"] == "Completed"
    assert described["EnableManagedSpotTraining"] is True


def test_other_actions_are_refused_by_name(sagemaker):
    code, message = refusal(sagemaker, "CreateProcessingJob", {})
    assert code == "UnsupportedOperation"
    assert message.startswith("CreateProcessingJob is not supported by the local SageMaker")


def test_entry_point_and_arguments(run, outside):
    algorithm = {
        "TrainingImage": "tiny",
        "TrainingInputMode": "File",
        "ContainerEntrypoint": ["sh", "-c", 'cat "$0"; echo " $1"'],
        "ContainerArguments": ["/opt/ml/input/config/inputdataconfig.json", "done"],
    }
    assert run("entry", "", AlgorithmSpecification=algorithm)["TrainingJobStatus"] == "Completed"
    assert outside.log("entry") == ["{} done"]


def test_nothing_of_the_host_reaches_the_job(run, outside, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of the host")
    monkeypatch.setenv("PYTHONPATH", "/of/the/host")
    script = "import os\nfor name in sorted(os.environ): print(name, os.environ[name])"
    run("clean", script, Environment={"MINE": "1", "OMP_NUM_THREADS": "7"})
    lines = outside.log("clean")
    assert not any("of the host" in line or line.startswith("PYTHONPATH") for line in lines)
    assert {f"AWS_ROLE_FOR_TEST {ROLE}", "MINE 1", "OMP_NUM_THREADS 7", "TRAINING_JOB_NAME clean"} <= set(lines)


def test_a_job_leaves_no_files_on_the_machine(run, sagemaker):
    script = "import os, tempfile\nfor name in ('HOME', 'TMPDIR'): open(os.environ[name] + '/left', 'w').write('x')"
    assert run("tidy", script)["TrainingJobStatus"] == "Completed"
    assert not sagemaker.training_jobs.folder("tidy").exists()
    assert not sagemaker.training_jobs.scratch("tidy").exists()


def test_jobs_run_at_the_same_time(sagemaker, job):
    """Each waits for the other: neither could end alone."""
    script = """
import os, pathlib, time
pathlib.Path(os.environ['MINE']).touch()
while not pathlib.Path(os.environ['OTHER']).exists():
    time.sleep(0.01)
"""
    meeting = sagemaker.account.home
    with ThreadPoolExecutor() as pool:
        for name, other in (("left", "right"), ("right", "left")):
            environment = {"MINE": str(meeting / name), "OTHER": str(meeting / other)}
            pool.submit(sagemaker.call, "CreateTrainingJob", job(name, script, Environment=environment)).result()
        ended = list(pool.map(lambda name: sagemaker.training_jobs.wait(name, PATIENCE_SECONDS), ("left", "right")))
    assert [described["TrainingJobStatus"] for described in ended] == ["Completed", "Completed"]


def test_listing(run, sagemaker):
    for name in ("one", "two", "three"):
        run(name, "raise SystemExit(1)" if name == "two" else "print(1)")

    def names(**parameters: Any) -> list[str]:
        answer = sagemaker.call("ListTrainingJobs", parameters)
        return [summary["TrainingJobName"] for summary in answer["TrainingJobSummaries"]]

    assert names() == ["one", "two", "three"]
    assert names(SortBy="Name", SortOrder="Descending") == ["two", "three", "one"]
    assert names(StatusEquals="Failed") == ["two"]
    assert names(NameContains="t") == ["two", "three"]
    first = sagemaker.call("ListTrainingJobs", {"MaxResults": 2})
    assert names(MaxResults=2, NextToken=first["NextToken"]) == ["three"]


def test_tags_of_any_resource(sagemaker, run):
    arn = run("tagged", "print(1)", Tags=[{"Key": "a", "Value": "1"}])["TrainingJobArn"]
    sagemaker.call("AddTags", {"ResourceArn": arn, "Tags": [{"Key": "a", "Value": "2"}, {"Key": "b", "Value": ""}]})
    assert sagemaker.call("DeleteTags", {"ResourceArn": arn, "TagKeys": ["b", "none"]}) == {}
    assert sagemaker.call("ListTags", {"ResourceArn": arn}) == {"Tags": [{"Key": "a", "Value": "2"}]}
    too_many = [{"Key": f"k{number}", "Value": ""} for number in range(50)]
    assert refusal(sagemaker, "AddTags", {"ResourceArn": arn, "Tags": too_many})[0] == "ResourceLimitExceeded"
    unknown = arn.replace("tagged", "unknown")
    assert refusal(sagemaker, "ListTags", {"ResourceArn": unknown})[0] == "ValidationException"
