"""Bad input: refused before anything starts where that can be known, and never green."""

import json
import os
import subprocess
import sys

import pytest

SCRATCH = ("--set", "model.weights=none", "--set", "model.architecture=resnet18", "--set", "model.image_size_px=32")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "photos", "--set", "tuning.max_job=2"), "did you mean tuning.max_jobs"),
        (("run", "photos", "--set", "tuning.max_jobs=1000"), "an integer from 1 to 500"),
        (("run", "photos", "--set", "model.weights=resnet50.onnx"), "s3:// URI"),
        (("run", "nowhere"), "there is no such folder"),
        (("run", "empty"), "holds no images"),
        (("run", "photos/train/cat"), "holds images, but no folder for each class"),
        (("run", "s3://Not_A_Bucket"), "is not a data set"),
        (("run",), "needs a data set"),
        (("run", "--attach", "nothing"), "there is no execution nothing"),
        (("stop", "nothing"), "there is no execution nothing"),
        (("logs", "nothing"), "there are no logs of nothing"),
        (("debug", "photos"), "photos holds no tensors"),
        (
            ("classify", "photos/test/cat/001.jpg", "gone.jpg", "photos"),
            "gone.jpg: there is no such file; photos is a folder",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_it_is_refused_before_anything_starts(live, session, outputs, arguments, said):
    (live.folder / "empty").mkdir(exist_ok=True)
    before = stored(session, outputs["Bucket"])
    assert said in live.refused(2, *arguments)
    assert stored(session, outputs["Bucket"]) == before


def test_a_second_up_is_refused(live):
    assert f"up already, on port {live.port}" in live.refused(3, "up")


@pytest.mark.parametrize(
    "usage", [("run", "photos", "--no-such-option"), ("no-such-command",), ("up", "--port", "http")]
)
def test_wrong_usage_ends_with_2(live, usage):
    done = live(*usage)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


DATASETS = {
    "missing": ([], "holds no images"),
    "one-class": (["train/cat/1.png", "valid/cat/1.png", "test/cat/1.png"], "one class only, cat"),
    "class-missing": (
        ["train/cat/1.png", "train/dog/1.png", "valid/cat/1.png", "test/cat/1.png"],
        "has no images of dog",
    ),
    "other-names": (
        [f"{split}/{label}/1.png" for split in ("train", "test") for label in ("cat", "dog")]
        + ["valid/cat/1.png", "valid/hound/1.png"],
        "has no images of hound",
    ),
    "non-images": (
        [f"{split}/{label}/1.png" for split in ("train", "valid", "test") for label in ("cat", "dog")]
        + ["train/cat/notes.txt", "train/cat/table.csv"],
        "2 files that are not an image",
    ),
    "fewer-than-a-batch": (
        [f"{split}/{label}/1.png" for split in ("train", "valid", "test") for label in ("cat", "dog")],
        "only 2 images: choose batch sizes of at most 2",
    ),
}


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_set_in_s3_that_cannot_be_trained_on_fails_the_run_at_once(live, session, outputs, name):
    keys, said = DATASETS[name]
    for key in keys:
        session.client("s3").put_object(Bucket=outputs["Bucket"], Key=f"datasets/{name}/{key}", Body=b"image")
    line = live.refused(1, "run", f"s3://{outputs['Bucket']}/datasets/{name}/", *SCRATCH)
    assert "FAILED" in line
    assert said in line


def test_unreadable_images_fail_the_run_and_are_named_with_their_count(live):
    folder = live.folder / "spoiled"
    if not folder.exists():
        subprocess.run(["cp", "-r", live.folder / "photos", folder], check=True)
        for number in ("001", "002"):
            (folder / "train" / "cat" / f"{number}.jpg").write_bytes(b"\xff\xd8\xff no image")
    done = live("run", "spoiled", "--json", *SCRATCH, "--set", "tuning.ranges.batch_size=16")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert (document["status"], document["endpoint"], document["test_accuracy"]) == ("FAILED", None, None)
    line = next(line for line in done.stderr.splitlines() if line.startswith("kelpie: "))
    for said in ("2 images", "train/cat/001.jpg", "train/cat/002.jpg"):
        assert said in line
    assert document["failed_job"]["name"].endswith("-prepare-1")
    assert any("train/cat/001.jpg" in line for line in document["failed_job"]["last_lines"])
    assert "train/cat/001.jpg" in live.ok("logs", document["failed_job"]["name"])


def test_weights_that_cannot_be_had_fail_the_run_and_say_what_to_do(live, outputs):
    bucket = outputs["Bucket"]
    key = f"s3://{bucket}/weights/none/none.safetensors"
    line = live.refused(1, "run", "photos", "--set", f"model.weights={key}", "--set", "tuning.ranges.batch_size=16")
    assert key in line


def test_weights_that_are_no_weights_fail_the_run(live):
    (live.folder / "own.pth").write_bytes(b"no weights")
    arguments = ("--set", "model.weights=own.pth", "--set", "model.architecture=resnet18")
    sizes = ("--set", "model.image_size_px=32", "--set", "tuning.ranges.batch_size=16")
    done = live("run", "photos", *arguments, *sizes)
    assert done.returncode == 1
    assert "WeightsUnavailable" in done.stderr


def test_an_execution_input_that_is_not_json_is_refused(outputs, live):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "awscli", "stepfunctions", "start-execution"),
            *("--state-machine-arn", outputs["StateMachineArn"], "--input", "not JSON"),
        ],
        env=os.environ | live.cloud.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "InvalidExecutionInput" in done.stderr


@pytest.mark.parametrize(
    "given", ["[]", '"s3://bucket/"', "{}", '{"dataset": 7}', '{"dataset": "s3://bucket/", "x": 1}']
)
def test_an_execution_input_that_breaks_the_contract_fails_the_execution(session, outputs, live, given):
    stepfunctions = session.client("stepfunctions")
    started = stepfunctions.start_execution(stateMachineArn=outputs["StateMachineArn"], input=given)
    line = live.refused(1, "run", "--attach", started["executionArn"])
    assert "InvalidInput" in line


def stored(session, bucket):
    """Return the keys in the bucket, and the executions that there were."""
    pages = session.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]
