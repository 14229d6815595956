"""What MiniStack's S3 holds in memory of the versions of an object, as it is and repaired."""

import asyncio

import pytest
from ministack.services import s3

from localcloud.ministack import versions

BODIES = [letter * 1000 for letter in (b"a", b"b", b"c")]
(REPAIR,) = versions.REPAIRS


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A bucket with versions, on the disk."""
    monkeypatch.setattr(s3, "S3_PERSIST", True)
    monkeypatch.setattr(s3, "DATA_DIR", str(tmp_path))
    name = tmp_path.name.replace("_", "-").lower()[-40:]
    ask("PUT", f"/{name}")
    ask(
        "PUT", f"/{name}", b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>", versioning=""
    )
    return name


@pytest.fixture
def repaired(monkeypatch):
    monkeypatch.setattr(s3, REPAIR.function, REPAIR.repaired(getattr(s3, REPAIR.function)))


def ask(method, path, body=b"", **query):
    status, headers, content = asyncio.run(
        s3.handle_request(method, path, {}, body, {name: [value] for name, value in query.items()})
    )
    return status, headers, content


def put_all(bucket):
    return [ask("PUT", f"/{bucket}/key", body)[1]["x-amz-version-id"] for body in BODIES]


def bytes_in_memory(bucket):
    return sum(len(version["data"] or b"") for version in s3._object_versions[bucket, "key"])


def test_versions_are_read_from_the_disk(bucket, repaired):  # noqa: ARG001
    kept = put_all(bucket)
    assert bytes_in_memory(bucket) == 0
    assert [ask("GET", f"/{bucket}/key", versionId=one)[2] for one in kept] == BODIES
    assert ask("GET", f"/{bucket}/key")[2] == BODIES[-1]


def test_a_version_is_there_again_when_a_newer_one_or_a_marker_is_gone(bucket, repaired):  # noqa: ARG001
    kept = put_all(bucket)
    marker = ask("DELETE", f"/{bucket}/key")[1]["x-amz-version-id"]
    assert [ask("GET", f"/{bucket}/key", versionId=one)[2] for one in kept] == BODIES
    for newest, below in ((marker, BODIES[2]), (kept[2], BODIES[1]), (kept[1], BODIES[0])):
        ask("DELETE", f"/{bucket}/key", versionId=newest)
        assert ask("GET", f"/{bucket}/key")[2] == below
    assert bytes_in_memory(bucket) == 0


def test_upstream_keeps_every_body(bucket):
    put_all(bucket)
    assert bytes_in_memory(bucket) == sum(map(len, BODIES))
