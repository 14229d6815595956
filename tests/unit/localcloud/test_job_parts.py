"""The pure parts of a training job: metrics, log batches, paths of keys, status changes, image names."""

from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from localcloud.containers.images import Image, Images, LaunchError, UnknownImage, repository
from localcloud.processes import ProcessSpec
from localcloud.sagemaker.artifacts import model_artifacts_uri
from localcloud.sagemaker.channels import prefix_path
from localcloud.sagemaker.errors import ServiceError
from localcloud.sagemaker.logs import MOST_BYTES, MOST_EVENTS, _batches
from localcloud.sagemaker.metrics import Metrics
from localcloud.sagemaker.objects import Location, TransferError, safe_path
from localcloud.sagemaker.training_records import JobEnded, enter, shortened, state_change_detail
from localcloud.sagemaker.training_requests import SUPPORT
from localcloud.sagemaker.validation import operation

NOW = datetime(2026, 11, 22, tzinfo=UTC)


def test_metrics_keep_their_history_and_their_last_value():
    metrics = Metrics(
        [{"Name": "valid:accuracy", "Regex": r"valid_accuracy=([0-9.]+)"}, {"Name": "none", "Regex": "(x)"}]
    )
    metrics.read("epoch 1/2 train_loss=0.4 valid_accuracy=0.81 phase_seconds_left=3", NOW)
    metrics.read("nothing here", NOW)
    metrics.read("valid_accuracy=0.9 valid_accuracy=0.92", NOW)
    assert metrics.history() == {"valid:accuracy": [(NOW, 0.81), (NOW, 0.9), (NOW, 0.92)]}
    assert metrics.final() == [{"MetricName": "valid:accuracy", "Value": 0.92, "Timestamp": NOW}]


@pytest.mark.parametrize("line", ["loss=nan", "loss=inf", "loss=word", "loss="])
def test_what_is_no_finite_number_is_no_value(line: str):
    metrics = Metrics([{"Name": "loss", "Regex": "loss=([a-z]*)"}])
    metrics.read(line, NOW)
    assert metrics.final() == []


@pytest.mark.parametrize("regex", ["loss=[0-9", "loss=[0-9]+"])
def test_unusable_metric_definition_is_refused(regex: str):
    with pytest.raises(ServiceError, match="'loss'") as caught:
        Metrics([{"Name": "loss", "Regex": regex}])
    assert caught.value.code == "ValidationException"


def test_log_batches_keep_the_limits_and_the_order():
    events = [{"timestamp": number, "message": "ä" * 100} for number in range(25_000)]
    batches = _batches(events)
    assert [event for batch in batches for event in batch] == events
    for batch in batches:
        assert len(batch) <= MOST_EVENTS
        assert sum(len(event["message"].encode()) + 26 for event in batch) <= MOST_BYTES
    assert _batches([]) == []


@pytest.mark.parametrize(
    ("prefix", "key", "path"),
    [
        ("data/digits", "data/digits/train/0/a.png", "train/0/a.png"),
        ("data/digits/", "data/digits/train/0/a.png", "train/0/a.png"),
        ("data/model.tar.gz", "data/model.tar.gz", "model.tar.gz"),
        ("data/dig", "data/digits/a.png", "digits/a.png"),
        ("dig", "digits/a.png", "digits/a.png"),
        ("", "digits/a.png", "digits/a.png"),
    ],
)
def test_path_of_a_key_in_its_channel(prefix: str, key: str, path: str):
    assert prefix_path(prefix, key) == path


@pytest.mark.parametrize("key", ["../secret", "a/../../b", "/etc/passwd", ""])
def test_keys_do_not_leave_the_folder(key: str):
    with pytest.raises(TransferError):
        safe_path(Path("channel"), key)


def test_locations():
    assert Location.parse("s3://bucket/a/b").below("c") == Location("bucket", "a/b/c")
    assert Location.parse("s3://bucket").below("c") == Location("bucket", "c")
    assert str(Location.parse("s3://bucket/a/").below("")) == "s3://bucket/a/"
    for wrong in ("https://bucket/a", "s3:///a", "bucket/a", ""):
        with pytest.raises(ValueError, match="s3://"):
            Location.parse(wrong)


def test_where_the_model_is_found():
    assert model_artifacts_uri({"S3OutputPath": "s3://b/jobs/"}, "j") == "s3://b/jobs/j/output/model.tar.gz"
    plain = {"S3OutputPath": "s3://b/jobs", "CompressionType": "NONE"}
    assert model_artifacts_uri(plain, "j") == "s3://b/jobs/j/output/model/"


def new_job() -> dict[str, Any]:
    return {
        "TrainingJobName": "j",
        "TrainingJobArn": "arn",
        "TrainingJobStatus": "InProgress",
        "SecondaryStatus": "Starting",
        "SecondaryStatusTransitions": [{"Status": "Starting", "StartTime": NOW, "StatusMessage": "Starting"}],
        "CreationTime": NOW,
    }


def test_each_transition_ends_where_the_next_begins():
    job = new_job()
    for status, secondary in (("InProgress", "Downloading"), ("InProgress", "Training"), ("Completed", "Completed")):
        enter(job, status, secondary)
    transitions = job["SecondaryStatusTransitions"]
    assert [transition["Status"] for transition in transitions] == ["Starting", "Downloading", "Training", "Completed"]
    for before, after in pairwise(transitions):
        assert before["EndTime"] == after["StartTime"]
    assert transitions[-1]["EndTime"] == job["TrainingEndTime"]
    assert job["TrainingTimeInSeconds"] == job["BillableTimeInSeconds"] == 1


def test_a_job_that_never_started_is_not_billed():
    job = new_job()
    enter(job, "Failed", "Failed", "why")
    assert job["FailureReason"] == job["SecondaryStatusTransitions"][-1]["StatusMessage"] == "why"
    assert "BillableTimeInSeconds" not in job


def test_an_ended_job_does_not_change():
    job = new_job()
    enter(job, "Completed", "Completed")
    with pytest.raises(JobEnded):
        enter(job, "Stopping", "Stopping")


def test_event_has_milliseconds_and_a_map_of_tags():
    detail = state_change_detail({**new_job(), "TuningJobArn": None}, [{"Key": "team", "Value": "sheep"}])
    assert detail["CreationTime"] == detail["SecondaryStatusTransitions"][0]["StartTime"] == 1795305600000
    assert detail["Tags"] == {"team": "sheep"}
    assert "TuningJobArn" not in detail


def test_reason_fits_its_limit_with_the_exit_code():
    assert shortened("AlgorithmError: " + "x" * 2000, ", exit code: 1").endswith("x, exit code: 1")
    assert len(shortened("x" * 2000, ", exit code: 1")) == 1024


def test_every_parameter_that_is_listed_exists():
    """A field that is renamed or misspelt in the list of what is honoured would be refused, or accepted unseen."""
    known = set()

    def walk(shape: Any, path: str) -> None:
        known.add(path)
        if shape.type_name == "structure":
            for name, member in shape.members.items():
                walk(member, f"{path}.{name}" if path else name)
        elif shape.type_name == "list":
            walk(shape.member, f"{path}[]")

    walk(operation("CreateTrainingJob").input_shape, "")
    assert {*SUPPORT.honoured, *SUPPORT.only, *SUPPORT.ignored} - known == set()


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch:2.14-cpu-amzn2023-sagemaker", "pytorch"),
        ("763104351884.dkr.ecr.us-east-1.amazonaws.com/ray:serve-ml-sagemaker-cpu-v1.4", "ray"),
        ("localhost:5000/team/tiny:1@sha256:0123", "tiny"),
        ("tiny", "tiny"),
    ],
)
def test_repository_of_an_image(uri: str, name: str):
    assert repository(uri) == name


def test_unknown_image_lists_the_known_ones():
    images = Images({"ray": Image(serving=launch), "tiny": Image(training=launch)})
    with pytest.raises(UnknownImage, match=r"'x/xgboost:1'.*'xgboost'.*for training: tiny$"):
        images.training("x/xgboost:1")
    with pytest.raises(UnknownImage, match=r"for training: tiny$"):
        images.training("x/ray:1")
    with pytest.raises(UnknownImage, match=r"for serving: ray$"):
        images.serving("tiny")


def launch(container: Any) -> ProcessSpec:
    raise LaunchError(f"nothing is launched here: {container}")
