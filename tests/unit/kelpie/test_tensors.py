"""Where the tensors of a training are looked for, and how they are fetched."""

import pytest

from kelpie import tensors
from kelpie.errors import InvalidInput, RunFailed

FILES = (
    "collections/000000000/worker_0_collections.json",
    "events/000000000002/000000000002_worker_0.tfevents",
    "index/000000000/000000000002_worker_0.json",
)


def put(s3, prefix, files=FILES):
    for name in files:
        s3.put_object(Bucket="bucket", Key=f"{prefix}{name}", Body=name.encode())


@pytest.mark.parametrize("uri", ["s3://bucket/job", "s3://bucket/job/", "s3://bucket/job/smdebug/"])
def test_the_tensors_alone_are_fetched_from_a_jobs_checkpoints_or_their_own_prefix(s3, tmp_path, uri):
    put(s3, "job/smdebug/")
    put(s3, "job/", ["checkpoint.pt", "findings.json"])
    put(s3, "job-2/smdebug/")
    assert tensors.fetch(s3, uri, tmp_path) == tmp_path
    fetched = {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*") if path.is_file()}
    assert set(fetched) == set(FILES)
    assert all(path.read_text() == name for name, path in fetched.items())


def test_no_key_is_written_outside_of_the_folder(s3, tmp_path):
    put(s3, "job/", [*FILES, "events/../../outside"])
    tensors.fetch(s3, "s3://bucket/job/", tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


LAST = [
    ({"findings.json": '{"tensors": "smdebug-2"}'}, "smdebug-2"),
    ({"findings.json": '{"tensors": null}'}, "smdebug-10"),
    ({"findings.json": '{"tensors": "/opt/ml/output/tensors"}'}, "smdebug-10"),
    ({"findings.json": "of another tool"}, "smdebug-10"),
    ({}, "smdebug-10"),
]
"""What lies beside the tensors of three trainings, and which are reviewed."""


@pytest.mark.parametrize(("beside", "expected"), LAST)
def test_of_several_trainings_the_last_ones_tensors_are_fetched(s3, tmp_path, beside, expected):
    for name in ("smdebug", "smdebug-2", "smdebug-10", "smdebug-rules"):
        put(s3, f"job/{name}/")
        s3.put_object(Bucket="bucket", Key=f"job/{name}/collections/name", Body=name.encode())
    for name, text in beside.items():
        s3.put_object(Bucket="bucket", Key=f"job/{name}", Body=text.encode())
    assert (tensors.fetch(s3, "s3://bucket/job/", tmp_path) / "collections/name").read_text() == expected


@pytest.mark.parametrize(("beside", "expected"), LAST)
def test_of_several_trainings_the_last_ones_folder_is_found(tmp_path, beside, expected):
    for name in ("smdebug", "smdebug-2", "smdebug-10", "smdebug-rules"):
        (tmp_path / name / "collections").mkdir(parents=True)
    for name, text in beside.items():
        (tmp_path / name).write_text(text)
    assert tensors.find(tmp_path) == tmp_path / expected


def test_a_prefix_without_tensors_is_refused(s3, tmp_path):
    put(s3, "job/", ["checkpoint.pt", "events/other"])
    for uri in ("s3://bucket/job/", "s3://bucket"):
        with pytest.raises(InvalidInput, match="holds no tensors"):
            tensors.fetch(s3, uri, tmp_path)


def test_a_folder_is_the_tensors_own_or_a_trainings_output(tmp_path):
    with pytest.raises(InvalidInput, match="holds no tensors"):
        tensors.find(tmp_path)
    (tmp_path / "smdebug" / "collections").mkdir(parents=True)
    assert tensors.find(tmp_path) == tensors.find(tmp_path / "smdebug") == tmp_path / "smdebug"


def test_rules_that_cannot_run_say_why(tmp_path):
    interpreter = tmp_path / "python"
    interpreter.write_text("#!/bin/sh\necho 'noise' >&2\necho 'TensorsMissing: nothing there' >&2\nexit 1\n")
    interpreter.chmod(0o755)
    with pytest.raises(RunFailed, match=r"on s3://bucket/job/: TensorsMissing: nothing there"):
        tensors.review(interpreter, tmp_path, "s3://bucket/job/")


@pytest.mark.parametrize(("given", "passed"), [((), "none"), (("A.one=1", "B.two=true"), "A.one=1,B.two=true")])
def test_rules_get_the_parameters_that_are_given(tmp_path, given, passed):
    interpreter = tmp_path / "python"
    interpreter.write_text('#!/bin/sh\nprintf \'{"parameters": "%s"}\' "$7" > "$5/findings.json"\n')
    interpreter.chmod(0o755)
    assert tensors.review(interpreter, tmp_path, "out/", given) == {"parameters": passed}
