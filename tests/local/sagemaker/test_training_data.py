"""What training jobs read and leave in S3: channels, artifacts, checkpoints, and what is kept of them."""

import json
import time
from pathlib import Path
from typing import Any

from localcloud.sagemaker.objects import Location, ObjectCache, list_objects
from tests.local.sagemaker.training import channel
from tests.waiting import PATIENCE_SECONDS, wait_for

ROLE = "arn:aws:iam::123456789012:role/training"


def test_what_a_failed_job_wrote_is_uploaded(run, outside):
    run("failed", "import os, sys; open(os.environ['SM_OUTPUT_DATA_DIR'] + '/why', 'w').write('x'); sys.exit(2)")
    assert outside.unpacked("jobs/failed/output/output.tar.gz") == {"why": b"x"}


def test_output_that_cannot_be_uploaded_fails_the_job(run):
    script = "import os, sys; open(os.environ['SM_MODEL_DIR'] + '/m', 'w').write('x'); sys.exit({})"
    output = {"S3OutputPath": "s3://no-such-bucket/jobs"}
    described = run("well", script.format(0), OutputDataConfig=output)
    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"].startswith("ClientError: NoSuchBucket (404)")
    described = run("badly", script.format(4), OutputDataConfig=output)
    assert described["FailureReason"] == "AlgorithmError: , exit code: 4"  # its own failure comes first


def test_empty_channel_fails_in_the_words_of_aws(run):
    described = run("empty", "", InputDataConfig=[channel("dataset", "s3://the-bucket/nothing/")])
    assert described["FailureReason"].startswith(
        'ClientError: Data download failed:No S3 objects found under S3 URL "s3://the-bucket/nothing/"'
    )


def test_missing_bucket_fails_with_its_name(run):
    described = run("nobucket", "", InputDataConfig=[channel("dataset", "s3://no-such-bucket/data")])
    assert "NoSuchBucket (404)" in described["FailureReason"]
    assert "s3://no-such-bucket/data" in described["FailureReason"]


def test_manifest_channel(run, outside):
    outside.put("data/a/1.txt", "one")
    outside.put("data/a/2.txt", "two")
    outside.put("data/3.txt", "three")
    outside.put("manifests/m.json", json.dumps([{"prefix": "s3://the-bucket/data/"}, "a/1.txt", "3.txt"]))
    script = (
        "import os, pathlib; print(*sorted(p.name for p in pathlib.Path(os.environ['SM_CHANNEL_X']).rglob('*.txt')))"
    )
    manifest = channel("x", "s3://the-bucket/manifests/m.json", S3DataType="ManifestFile")
    assert run("by-manifest", script, InputDataConfig=[manifest])["TrainingJobStatus"] == "Completed"
    assert outside.log("by-manifest") == ["1.txt 3.txt"]
    outside.put("manifests/m.json", json.dumps([{"prefix": "s3://the-bucket/data/"}, "a/1.txt", "gone.txt"]))
    described = run("by-wrong-manifest", script, InputDataConfig=[manifest])
    assert "names 1 objects that do not exist, the first: s3://the-bucket/data/gone.txt" in described["FailureReason"]


def test_a_job_cannot_spoil_what_the_next_one_reads(run, outside):
    for number in range(20):
        outside.put(f"data/{number}.txt", "old")
    script = """
import os, pathlib
paths = sorted(pathlib.Path(os.environ['SM_CHANNEL_DATASET']).glob('*.txt'))
print(len(paths), *sorted({p.read_text() for p in paths}))
for path in paths: path.write_text('spoilt by the job')
"""
    run("first", script, InputDataConfig=[channel("dataset", "s3://the-bucket/data")])
    outside.put("data/7.txt", "new")
    outside.s3.delete_object(Bucket="the-bucket", Key="data/8.txt")
    run("second", script, InputDataConfig=[channel("dataset", "s3://the-bucket/data")])
    assert outside.log("first") == ["20 old"]
    assert outside.log("second") == ["19 new old"]


def test_only_new_objects_are_read_and_each_role_reads_for_itself(start_service, outside, job, monkeypatch):
    read: list[str] = []
    client = outside.client

    def watched(service: str, role_arn: str | None) -> Any:
        made = client(service, role_arn)
        made.meta.events.register("provide-client-params.s3.GetObject", lambda params, **_: read.append(params["Key"]))
        return made

    monkeypatch.setattr(outside, "client", watched)
    service = start_service()
    for key in ("data/a", "data/b"):
        outside.put(key, "old")
    another = "arn:aws:iam::123456789012:role/another"
    for name, role, change, expected in (
        ("first", ROLE, "", ["data/a", "data/b"]),
        ("second", ROLE, "", []),
        ("third", ROLE, "data/a", ["data/a"]),
        ("fourth", another, "", ["data/a", "data/b"]),
    ):
        if change:
            outside.put(change, "new")
        read.clear()
        members = {"InputDataConfig": [channel("dataset", "s3://the-bucket/data")], "RoleArn": role}
        service.call("CreateTrainingJob", job(name, "print(1)", **members))
        assert service.training_jobs.wait(name, PATIENCE_SECONDS)["TrainingJobStatus"] == "Completed"
        assert sorted(read) == expected


def test_checkpoints_go_both_ways(sagemaker, outside, job):
    sagemaker.training_jobs.checkpoint_seconds = 0.3
    outside.put("ckpt/old/1.pt", "from an earlier run")
    outside.put("ckptother/2.pt", "not ours")
    script = """
import os, pathlib, time
folder = pathlib.Path(os.environ['SM_CHECKPOINT_DIR'])
print(*sorted(str(p.relative_to(folder)) for p in folder.rglob('*.pt')), (folder / 'old/1.pt').read_text())
(folder / 'new.pt').write_text('new')
while not pathlib.Path(os.environ['SM_CHECKPOINT_DIR'], '..', 'go').exists():
    time.sleep(0.02)
(folder / 'last.pt').write_text('last')
raise SystemExit(3)
"""
    sagemaker.call(
        "CreateTrainingJob",
        job(
            "resumed",
            script,
            CheckpointConfig={"S3Uri": "s3://the-bucket/ckpt"},
            Environment={"SM_CHECKPOINT_DIR": "/opt/ml/checkpoints"},
        ),
    )
    wait_for(lambda: "ckpt/new.pt" in outside.keys("ckpt/"))  # while it runs
    (sagemaker.training_jobs.folder("resumed") / "algo-1" / "opt" / "ml" / "go").touch()
    described = sagemaker.training_jobs.wait("resumed", PATIENCE_SECONDS)
    assert outside.log("resumed") == ["old/1.pt from an earlier run"]
    assert described["TrainingJobStatus"] == "Failed"
    assert outside.read("ckpt/last.pt") == b"last"


def test_uncompressed_output(run, outside):
    script = """
import os, pathlib
for folder, name in (('SM_MODEL_DIR', 'deep/manifest.json'), ('SM_OUTPUT_DATA_DIR', 'notes.txt')):
    path = pathlib.Path(os.environ[folder], name)
    path.parent.mkdir(exist_ok=True)
    path.write_text('{}')
"""
    described = run(
        "plain", script, OutputDataConfig={"S3OutputPath": "s3://the-bucket/jobs/", "CompressionType": "NONE"}
    )
    assert described["ModelArtifacts"] == {"S3ModelArtifacts": "s3://the-bucket/jobs/plain/output/model/"}
    assert outside.keys("jobs/") == ["jobs/plain/output/data/notes.txt", "jobs/plain/output/model/deep/manifest.json"]


def test_cache_is_kept_below_its_limit(tmp_path: Path, outside):
    for number in range(4):
        outside.put(f"data/{number}", "x" * 100)
    cache = ObjectCache(tmp_path / "cache", limit_bytes=250)
    found = list_objects(outside.s3, Location("the-bucket", "data/"))
    for number, stored in enumerate(found):
        cache.fetch(outside.s3, ROLE, [(stored, tmp_path / "files" / str(number))])
        time.sleep(0.01)
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in kept) == 200
    assert len(list((tmp_path / "files").iterdir())) == 4
