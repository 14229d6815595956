"""The answer as tags of the object."""

from urllib.parse import unquote_plus

import pytest

BUCKET = "kelpie-123456789012-eu-west-1"
PNG = b"\x89PNG\r\n\x1a\n rest"
JPEG = b"\xff\xd8\xff\xe0 rest"


@pytest.fixture
def tags(s3, monkeypatch, app):  # noqa: ARG001 - its variable is set first
    """Tags are asked for; a function that reads them of a record's object."""
    monkeypatch.setenv("TAG_OBJECTS", "true")

    def tags(record):
        stored = record["s3"]["object"]
        key, version = unquote_plus(stored["key"]), stored["versionId"]
        found = s3.get_object_tagging(Bucket=BUCKET, Key=key, VersionId=version)["TagSet"]
        return {one["Key"]: one["Value"] for one in found}

    return tags


def test_the_answer_is_put_to_the_objects_tags_and_leaves_its_others(drop, handle, tags):
    old, new = drop("inbox/my dog+.jpg", PNG), drop("inbox/my dog+.jpg", JPEG, Tagging="owner=me&kelpie-label=cat")
    assert handle(new) == []
    assert tags(new) == {"owner": "me", "kelpie-status": "classified", "kelpie-label": "collie"}
    assert tags(old) == {}
    rejected = drop("inbox/b.jpg", b"text")
    assert handle(rejected) == []
    assert tags(rejected) == {"kelpie-status": "rejected"}


def test_tags_are_put_again_with_the_event_that_may_have_been_lost(drop, handle, tags, s3):
    dropped = drop("inbox/a.jpg", JPEG)
    handle(dropped)
    s3.delete_object_tagging(Bucket=BUCKET, Key="inbox/a.jpg", VersionId=dropped["s3"]["object"]["versionId"])
    assert handle(dropped, receives=2) == []
    assert tags(dropped)["kelpie-label"] == "collie"


def test_an_object_without_room_for_tags_is_answered_all_the_same(drop, handle, tags, results, endpoint):
    dropped = drop("inbox/a.jpg", JPEG, Tagging="&".join(f"t{number}=1" for number in range(9)))
    assert handle(dropped) == []
    assert len(tags(dropped)) == 9
    assert len(results()) == len(endpoint.events) == 1


def test_without_being_asked_for_no_tags_are_put(drop, handle, tags, monkeypatch):
    monkeypatch.setenv("TAG_OBJECTS", "false")
    handle(dropped := drop("inbox/a.jpg", JPEG))
    assert tags(dropped) == {}


def test_a_tag_holds_what_a_tag_may(load):
    result = {"status": "classified", "label": "chien & chat, 犬 (100 %)" + "x" * 300}
    value = load("classify_image", "tags").tags_of(result)[1]["Value"]
    assert value.startswith("chien _ chat_ 犬 _100 __x")
    assert len(value) == 256
