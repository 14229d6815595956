"""How training jobs end: by themselves, by a failure, by a stop, by their time, and with the service."""

import time
from typing import Any

from botocore.exceptions import ClientError

from tests.local.sagemaker.training import WAIT, refusal
from tests.waiting import PATIENCE_SECONDS, wait_for

SAVE_ON_SIGTERM = """
import os, signal, sys, time
def save(*_):
    print('saving')
    open(os.environ['SM_MODEL_DIR'] + '/weights', 'w').write('half')
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print('ready')
time.sleep(600)
"""


def test_failure_file_is_the_reason(run):
    script = """
import os, sys
open(os.environ['SM_OUTPUT_DIR'] + '/failure', 'w').write('DatasetError: 3 images cannot be read')
print('the log says more')
sys.exit(1)
"""
    described = run("failed", script)
    assert described["TrainingJobStatus"] == described["SecondaryStatus"] == "Failed"
    assert described["FailureReason"] == "AlgorithmError: DatasetError: 3 images cannot be read, exit code: 1"
    assert "ModelArtifacts" not in described


def test_without_failure_file_the_end_of_the_log_is_the_reason(run):
    described = run(
        "crashed", "for number in range(100): print('line', number, 'x' * 50)\nraise ValueError('the cause')"
    )
    reason = described["FailureReason"]
    assert reason.startswith("AlgorithmError: ")
    assert reason.endswith("ValueError: the cause, exit code: 1")
    assert len(reason) <= 1024


def test_killed_process_tells_its_exit_code(run):
    described = run("killed", "import os; os.kill(os.getpid(), 9)")
    assert described["FailureReason"] == "AlgorithmError: , exit code: 137"


def test_unknown_image_fails_with_the_known_ones(run):
    algorithm = {"TrainingImage": "123.dkr.ecr.us-east-1.amazonaws.com/xgboost:1", "TrainingInputMode": "File"}
    described = run("unknown", "", AlgorithmSpecification=algorithm)
    assert described["FailureReason"].startswith("ClientError: No launcher for training with the image")
    assert described["FailureReason"].endswith("for training: tiny")


def test_stopped_job_may_save_its_model(sagemaker, outside, job, until_job):
    sagemaker.call("CreateTrainingJob", job("stopped", SAVE_ON_SIGTERM))
    until_job("stopped", lambda described: described["SecondaryStatus"] == "Training" and has_log(outside, "stopped"))
    assert sagemaker.call("StopTrainingJob", {"TrainingJobName": "stopped"}) == {}
    described = sagemaker.training_jobs.wait("stopped", PATIENCE_SECONDS)
    assert described["TrainingJobStatus"] == described["SecondaryStatus"] == "Stopped"
    assert [transition["Status"] for transition in described["SecondaryStatusTransitions"][-2:]] == [
        "Stopping",
        "Stopped",
    ]
    assert outside.unpacked("jobs/stopped/output/model.tar.gz") == {"weights": b"half"}
    assert "FailureReason" not in described
    code, message = refusal(sagemaker, "StopTrainingJob", {"TrainingJobName": "stopped"})
    assert (code, message) == (
        "ValidationException",
        "The request was rejected because the training job is in status Stopped.",
    )


def test_a_job_that_ignores_sigterm_is_killed_after_the_grace(sagemaker, outside, job, until_job):
    sagemaker.training_jobs.stop_grace_seconds = 0.3
    sagemaker.call("CreateTrainingJob", job("stubborn", "import signal; signal.signal(15, signal.SIG_IGN)\n" + WAIT))
    until_job("stubborn", lambda described: described["SecondaryStatus"] == "Training" and has_log(outside, "stubborn"))
    sagemaker.call("StopTrainingJob", {"TrainingJobName": "stubborn"})
    assert sagemaker.call("DescribeTrainingJob", {"TrainingJobName": "stubborn"})["TrainingJobStatus"] == "Stopping"
    assert sagemaker.training_jobs.wait("stubborn", PATIENCE_SECONDS)["TrainingJobStatus"] == "Stopped"


def test_a_job_is_stopped_at_once_after_its_creation(sagemaker, job):
    sagemaker.call("CreateTrainingJob", job("early", WAIT))
    sagemaker.call("StopTrainingJob", {"TrainingJobName": "early"})
    assert sagemaker.training_jobs.wait("early", PATIENCE_SECONDS)["TrainingJobStatus"] == "Stopped"


def test_longest_runtime(sagemaker, outside, job, monkeypatch):
    sagemaker.call("CreateTrainingJob", job("slow", SAVE_ON_SIGTERM, StoppingCondition={"MaxRuntimeInSeconds": 3600}))
    wait_for(lambda: has_log(outside, "slow"))
    monkeypatch.setattr("localcloud.sagemaker.training_run.monotonic", lambda: time.monotonic() + 3600)
    described = sagemaker.training_jobs.wait("slow", PATIENCE_SECONDS)
    assert described["TrainingJobStatus"] == "Stopped"
    assert described["SecondaryStatus"] == "MaxRuntimeExceeded"
    assert described["SecondaryStatusTransitions"][-1]["StatusMessage"] == (
        "Training job runtime exceeded MaxRuntimeInSeconds provided"
    )
    assert outside.unpacked("jobs/slow/output/model.tar.gz") == {"weights": b"half"}


def test_close_ends_running_jobs_and_they_are_failed_after_a_restart(start_service, outside, job, run):
    run("finished", "print(1)")
    service = start_service()
    service.call("CreateTrainingJob", job("running", WAIT))
    wait_for(lambda: has_log(outside, "running"))
    service.close()
    code, _ = refusal(service, "CreateTrainingJob", job("late", "print(1)"))
    assert code == "ServiceUnavailable"
    again = start_service()
    described = again.call("DescribeTrainingJob", {"TrainingJobName": "running"})
    assert described["TrainingJobStatus"] == "Failed"
    assert "the local cloud was stopped while this job was running" in described["FailureReason"]
    assert again.call("DescribeTrainingJob", {"TrainingJobName": "finished"})["TrainingJobStatus"] == "Completed"


def test_jobs_of_a_killed_cloud_are_failed_after_the_restart(start_service, sagemaker, job, outside):
    """What a killed cloud leaves: a record that says InProgress, a job's folder, its scratch folder."""
    record = {
        **job("orphan", WAIT),
        "TrainingJobArn": "arn:aws:sagemaker:us-east-1:123456789012:training-job/orphan",
        "TrainingJobStatus": "InProgress",
        "SecondaryStatus": "Starting",
        "SecondaryStatusTransitions": [{"Status": "Starting", "StartTime": outside.now, "StatusMessage": ""}],
        "CreationTime": outside.now,
        "LastModifiedTime": outside.now,
    }
    sagemaker.account.store.create("training-job", "orphan", record)
    leftovers = [sagemaker.training_jobs.folder("orphan"), sagemaker.training_jobs.scratch("orphan")]
    for leftover in leftovers:
        leftover.mkdir(parents=True)
    described = start_service().call("DescribeTrainingJob", {"TrainingJobName": "orphan"})
    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"] == "InternalServerError: the local cloud ended while this job was running"
    assert not any(leftover.exists() for leftover in leftovers)


def has_log(outside: Any, name: str) -> bool:
    try:
        return bool(outside.log(name))
    except (ClientError, ValueError):
        return False
