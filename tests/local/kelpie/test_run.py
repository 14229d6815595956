"""The main job by the command, on one run: from the folder `photos` to classified images, by our clients and others."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import boto3
import pytest

from tests.waiting import PATIENCE_SECONDS, wait_for

pytestmark = pytest.mark.slow

SCRATCH = ("--set", "model.weights=none", "--set", "tuning.ranges.batch_size=16")
CLASSES = ("cat", "dog", "owl")
NAMES = ("plain.jpg", "two words.jpg", "a+b.jpg", "100%25.jpg", "🐕.jpg", "no suffix", "wrong.png", "ü" * 60 + ".jpg")


def test_the_run_ends_with_an_endpoint_and_tells_all(trained):
    assert trained["status"] == "SUCCEEDED"
    assert trained["endpoint"] == "kelpie"
    assert trained["test_images"] == 30
    assert trained["test_accuracy"] > 0.5
    assert len(trained["trials"]) == 2
    assert {trial["status"] for trial in trained["trials"]} == {"Completed"}
    best = max(trained["trials"], key=lambda trial: trial["objective"])
    assert trained["hyperparameters"] == best["hyperparameters"]
    names = [state["name"] for state in trained["states"]]
    order = ("PlanRun", "PrepareDataset", "TuneHyperparameters", "TrainModel", "EvaluateModel", "VerifyEndpoint")
    assert [name for name in names if name in order] == list(order)
    assert sum(state["seconds"] for state in trained["states"]) == pytest.approx(trained["seconds"], abs=5, rel=0.2)


def test_the_artifacts_are_where_the_run_says(trained, session):
    for name in ("dataset", "run", "model", "report"):
        bucket, _, key = trained["artifacts"][name].removeprefix("s3://").partition("/")
        assert session.client("s3").list_objects_v2(Bucket=bucket, Prefix=key)["KeyCount"] > 0


def test_the_same_folder_is_not_copied_again(trained, live, session, outputs):
    prefix = trained["artifacts"]["dataset"].partition(outputs["Bucket"])[2][1:]
    before = {item["Key"]: item["LastModified"] for item in objects(session, outputs["Bucket"], prefix)}
    name = start_and_detach(live, "photos")
    live.ok("stop", name)
    assert "ABORTED" in live.refused(2, "stop", name)
    assert {item["Key"]: item["LastModified"] for item in objects(session, outputs["Bucket"], prefix)} == before


def test_files_of_any_name_are_classified_in_the_given_order(trained, live):
    assert trained["status"] == "SUCCEEDED"
    odd = live.folder / "odd"
    odd.mkdir(exist_ok=True)
    for number, name in enumerate(NAMES):
        label = CLASSES[number % 3]
        shutil.copy(live.folder / "photos" / "test" / label / f"{number // 3 + 1:03d}.jpg", odd / name)
    files = [f"odd/{name}" for name in NAMES]
    rows = json.loads(live.ok("classify", "--json", *files))
    assert [row["file"] for row in rows] == files
    assert all(row["status"] == "classified" and row["reason"] is None for row in rows)
    assert all(row["key"].startswith("inbox/") and row["key"].endswith(Path(row["file"]).name) for row in rows)
    for row in rows:
        assert row["predictions"][0] == {"label": row["label"], "probability": row["probability"]}
        assert sum(prediction["probability"] for prediction in row["predictions"]) == pytest.approx(1, abs=1e-3)
    right = [row["label"] == CLASSES[number % 3] for number, row in enumerate(rows)]
    assert sum(right) > len(right) / 2


def test_what_is_no_image_is_rejected_with_the_reason_and_the_exit_code_tells(trained, live):
    assert trained["status"] == "SUCCEEDED"
    (live.folder / "note.jpg").write_text("not an image")
    done = live("classify", "--json", "photos/test/cat/001.jpg", "note.jpg")
    rows = json.loads(done.stdout)
    assert done.returncode == 1
    assert [row["status"] for row in rows] == ["classified", "rejected"]
    assert rows[1]["label"] is None
    assert rows[1]["reason"]["message"]
    table = live("classify", "note.jpg").stdout
    assert "rejected" in table


def test_status_shows_what_is_in_service(trained, live):
    status = json.loads(live.ok("status", "--json"))
    run = f"kelpie-{trained['run_id']}"
    endpoint = status["endpoint"]
    assert (endpoint["name"], endpoint["status"]) == ("kelpie", "InService")
    assert endpoint["config"].startswith(run)
    assert endpoint["model"].startswith(run)
    lineage = endpoint["lineage"]
    assert (lineage["approval"], lineage["run_id"]) == ("Approved", trained["run_id"])
    assert len(lineage["data_digest"]) == 64
    assert trained["execution_name"] in [execution["name"] for execution in status["executions"]]
    assert f"run {trained['run_id']}, data {lineage['data_digest'][:12]}" in live.ok("status")
    assert trained["execution_name"] in live.ok("status")


def test_logs_are_found_by_job_function_and_execution(trained, live):
    job = f"kelpie-{trained['run_id']}-train-1"
    lines = json.loads(live.ok("logs", job, "--json", "-n", "0"))
    assert any(line["message"].startswith("epoch 1/") for line in lines)
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    sources = {line["source"] for line in json.loads(live.ok("logs", trained["execution_name"], "--json", "-n", "0"))}
    assert job in sources
    assert any("-prepare-1" in source for source in sources)
    assert live.ok("logs", "plan_run", "-n", "3").count("\n") == 3


def test_the_rules_say_the_same_afterwards_of_the_tensors_in_s3(trained, live, session, outputs):
    checkpoints = f"runs/{trained['run_id']}/checkpoints/kelpie-{trained['run_id']}-train-1"
    document = json.loads(live.ok("debug", f"s3://{outputs['Bucket']}/{checkpoints}/", "--json"))
    during = session.client("s3").get_object(Bucket=outputs["Bucket"], Key=f"{checkpoints}/findings.json")
    told = [(one["rule"], one["status"]) for one in json.loads(during["Body"].read())["findings"]]
    assert [(one["rule"], one["status"]) for one in document["findings"]] == told


def test_ctrl_c_detaches_and_the_run_can_be_followed_and_stopped(trained, live, session):
    assert trained["status"] == "SUCCEEDED"
    name = start_and_detach(live, trained["artifacts"]["dataset"])
    with live.start("run", "--attach", name, "--json") as follower:
        live.ok("stop", name)
        stdout, _stderr = follower.communicate(timeout=PATIENCE_SECONDS)
    assert follower.returncode == 1
    document = json.loads(stdout)
    assert (document["status"], document["error"]) == ("ABORTED", "StoppedByUser")

    def jobs():
        running = {"NameContains": document["run_id"], "StatusEquals": "InProgress"}
        return session.client("sagemaker").list_training_jobs(**running)["TrainingJobSummaries"]

    wait_for(lambda: not jobs(), jobs)
    assert json.loads(live.ok("status", "--json"))["endpoint"]["status"] == "InService"


def test_the_aws_cli_drops_an_image_and_reads_its_result(trained, live, outputs, session):
    assert trained["status"] == "SUCCEEDED"
    photo = live.folder / "photos" / "test" / "dog" / "003.jpg"
    aws(live, "s3", "cp", str(photo), f"s3://{outputs['Bucket']}/inbox/a photo+1.jpg")
    s3, bucket = session.client("s3"), outputs["Bucket"]

    def statuses():
        keys = [item["Key"] for item in objects(session, bucket, "results/")]
        results = [json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read()) for key in keys]
        return [result["status"] for result in results if result["key"] == "inbox/a photo+1.jpg"]

    wait_for(lambda: statuses() == ["classified"], statuses, pause_seconds=0.5)


def test_boto3_asks_the_endpoint_with_nothing_but_the_environment(trained, live):
    assert trained["status"] == "SUCCEEDED"
    script = (
        "import boto3, json, sys; "
        "answer = boto3.client('sagemaker-runtime').invoke_endpoint("
        "EndpointName='kelpie', ContentType='image/jpeg', Body=open(sys.argv[1], 'rb').read()); "
        "print(answer['Body'].read().decode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(live.folder / "photos" / "test" / "owl" / "001.jpg")],
        env=os.environ | live.cloud.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert {prediction["label"] for prediction in answer["predictions"]} == set(CLASSES)
    assert answer["model"]["run_id"] == trained["run_id"]


def aws(live, *arguments):
    command = [sys.executable, "-m", "awscli", *arguments]
    subprocess.run(command, env=os.environ | live.cloud.environment, capture_output=True, check=True)


def objects(session: boto3.Session, bucket: str, prefix: str):
    pages = session.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [item for page in pages for item in page.get("Contents", [])]


def start_and_detach(live, dataset):
    """Start a run, press Ctrl-C once it has begun, and return the name by which it can be followed."""
    with live.start("run", dataset, *SCRATCH) as process:
        for line in process.stderr:
            if "PlanRun" in line:
                break
        process.send_signal(signal.SIGINT)
        _stdout, stderr = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    name = stderr.rpartition("kelpie stop ")[2].strip()
    assert f"kelpie run --attach {name}" in stderr
    return name
