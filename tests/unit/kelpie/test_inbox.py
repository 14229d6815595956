"""Images dropped into the inbox, and the rows made of their results."""

import json
from pathlib import Path

import pytest

from kelpie import inbox
from kelpie.errors import InvalidInput, RunFailed

EXAMPLE = Path(__file__).parents[3] / "contracts" / "examples" / "classification.json"
NAMES = ["a b.png", "c+d.png", "e%20f.png", "🐕.png", "ü.png", "x" * 200 + ".png"]


def answer(stack, image, **changes):
    document = json.loads(EXAMPLE.read_text()) | changes
    stack.client("s3").put_object(Bucket="bucket", Key=image.result_key, Body=json.dumps(document))


def nothing():
    pass


def test_files_of_any_name_are_dropped_under_their_own_name(stack, tmp_path):
    files = []
    for name in NAMES:
        (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n" + name.encode())
        files.append(str(tmp_path / name))
    dropped = inbox.drop(stack, files, nothing)
    assert [image.file for image in dropped] == files
    assert [image.key.rpartition("/")[2] for image in dropped] == NAMES
    for image, name in zip(dropped, NAMES, strict=True):
        stored = stack.client("s3").get_object(Bucket="bucket", Key=image.key)
        assert stored["Body"].read().endswith(name.encode())
        assert stored["ContentType"] == "image/png"
        assert stored["VersionId"] in image.result_key


def test_the_same_file_twice_is_two_images(stack, tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    dropped = inbox.drop(stack, [str(tmp_path / "a.png")] * 2, nothing)
    assert len({image.key for image in dropped}) == 2


def test_nothing_is_dropped_if_a_file_is_missing(tmp_path):
    (tmp_path / "there.png").touch()
    with pytest.raises(InvalidInput, match=r"nothing was uploaded: .*gone\.png: there is no such file; .* is a folder"):
        inbox.check([str(tmp_path / "there.png"), str(tmp_path / "gone.png"), str(tmp_path)])


def test_results_come_back_in_the_given_order(stack, tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    dropped = inbox.drop(stack, [str(tmp_path / "a.png")] * 3, nothing)
    for image, label in zip(reversed(dropped), "cba", strict=True):
        answer(stack, image, label=label)
    rows = inbox.collect(stack, dropped, 5, nothing)
    assert [row["label"] for row in rows] == ["a", "b", "c"]
    assert {row["status"] for row in rows} == {"classified"}
    assert [row["key"] for row in rows] == [image.key for image in dropped]


def test_an_image_without_a_result_is_failed_with_the_reason(stack, tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    dropped = inbox.drop(stack, [str(tmp_path / "a.png")] * 2, nothing)
    answer(stack, dropped[1])
    rows = inbox.collect(stack, dropped, 0.5, nothing)
    assert [row["status"] for row in rows] == ["failed", "classified"]
    assert rows[0]["reason"]["code"] == "NoResult"


def test_a_result_that_breaks_its_contract_is_not_believed(stack, tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    dropped = inbox.drop(stack, [str(tmp_path / "a.png")], nothing)
    answer(stack, dropped[0], status="maybe")
    with pytest.raises(RunFailed, match="classification"):
        inbox.collect(stack, dropped, 5, nothing)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WAVE", "application/octet-stream"),
        (b"", "application/octet-stream"),
    ],
)
def test_the_content_type_is_found_by_content(content, expected):
    assert inbox.content_type(content) == expected
