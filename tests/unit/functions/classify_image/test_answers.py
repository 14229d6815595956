"""What becomes of an object: its answer, or why it has none."""

import json
import struct

import pytest

PNG = b"\x89PNG\r\n\x1a\n rest"
JPEG = b"\xff\xd8\xff\xe0 rest"


NAMES = [
    "inbox/dog.jpg",
    "inbox/my dog+cat 100%.jpg",
    "inbox/%2Bdog.jpg",
    "inbox/hund-ü-犬-😀.jpg",
    "inbox/" + "d" * 1018,
]


@pytest.mark.parametrize("name", NAMES)
def test_an_image_gets_its_answer_whatever_its_name(drop, handle, result, endpoint, name):
    key = f"inbox/{name}"
    dropped = drop(key, JPEG, Metadata={"camera": "7"})
    assert handle(dropped) == []
    answer = result(dropped)
    assert (answer["key"], answer["status"], answer["label"], answer["probability"]) == (
        key,
        "classified",
        "collie",
        0.9,
    )
    assert answer["predictions"] == endpoint.predictions
    assert answer["model"] == endpoint.model
    assert answer["metadata"] == {"camera": "7"}
    assert endpoint.asked == [("image/jpeg", JPEG)]
    (event,) = endpoint.events
    assert (event["Source"], event["DetailType"], json.loads(event["Detail"])) == ("kelpie", "ImageClassified", answer)


def test_content_decides_and_not_the_name(drop, handle, endpoint):
    handle(drop("inbox/a.jpg", PNG), drop("inbox/b", JPEG))
    assert [content_type for content_type, _ in endpoint.asked] == ["image/png", "image/jpeg"]


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (b"", "EmptyObject", "no bytes"),
        (b"hello", "NotAnImage", "found text"),
        (b"GIF89a", "UnreadableImage", "image/gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "UnreadableImage", "image/webp"),
        (b"%PDF-1.7", "NotAnImage", "a PDF document"),
        (b"PK\x03\x04", "NotAnImage", "a ZIP archive"),
        (b"\x00\x00\x00\x1cftypheic", "NotAnImage", "an HEIC image"),
        (b"\x00\x01\xfe\xff", "NotAnImage", "00 01 fe ff"),
        (JPEG + b"\0" * 6_291_456, "UnreadableImage", "image/jpeg"),
    ],
)
def test_what_cannot_be_classified_is_rejected_with_what_was_found(drop, handle, result, endpoint, body, code, said):
    dropped = drop("inbox/a.jpg", body)
    assert handle(dropped) == []
    answer = result(dropped)
    assert (answer["status"], answer["label"], answer["predictions"], answer["model"]) == ("rejected", None, [], None)
    assert answer["reason"]["code"] == code
    assert said in answer["reason"]["message"]
    assert answer["bytes"] == len(body)
    assert endpoint.asked == []
    assert endpoint.events[0]["DetailType"] == "ImageRejected"


def test_an_object_too_large_is_rejected_before_it_is_read(drop, handle, result, app, monkeypatch):
    monkeypatch.setattr(app, "LARGEST_OBJECT_BYTES", 4)
    dropped = drop("inbox/a.jpg", JPEG)
    assert handle(dropped) == []
    answer = result(dropped)
    assert (answer["status"], answer["reason"]["code"], answer["content_type"]) == ("rejected", "TooLarge", None)
    assert "at most 4 are read" in answer["reason"]["message"]


def test_an_image_of_another_format_is_asked_as_png(drop, handle, result, endpoint):
    bitmap = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 58, 0, 0, 54, 40, 1, 1, 1, 24, *[0] * 6) + b"\xff\0\0\0"
    dropped = drop("inbox/a.jpg", bitmap)
    assert handle(dropped) == []
    assert result(dropped)["content_type"] == "image/bmp"
    ((content_type, body),) = endpoint.asked
    assert (content_type, body[:4]) == ("image/png", b"\x89PNG")


def test_the_largest_body_that_the_endpoint_takes_is_sent(drop, handle, endpoint):
    body = JPEG + b"\0" * (6_291_456 - len(JPEG))
    assert handle(drop("inbox/a.jpg", body)) == []
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize("status", [400, 413, 415])
def test_a_refusal_of_the_model_is_a_rejection_with_its_reason(drop, handle, result, endpoint, status):
    endpoint.refuses(status, json.dumps({"error": "UnreadableImage", "reason": "truncated"}))
    dropped = drop("inbox/a.jpg", JPEG)
    assert handle(dropped) == []
    reason = result(dropped)["reason"]
    assert reason == {"code": "UnreadableImage", "message": "truncated"}


@pytest.mark.parametrize("message", ["<html>", '{"detail": 1}', "[]", '"text"'])
def test_a_refusal_in_another_form_is_a_rejection_too(drop, handle, result, endpoint, message):
    endpoint.refuses(413, message)
    dropped = drop("inbox/a.jpg", JPEG)
    assert handle(dropped) == []
    reason = result(dropped)["reason"]
    assert reason == {"code": "RefusedByModel", "message": message}


def test_below_the_confidence_asked_for_the_answer_is_unknown(drop, handle, result, endpoint, monkeypatch):
    monkeypatch.setenv("UNKNOWN_BELOW", "0.95")
    dropped = drop("inbox/a.jpg", JPEG)
    assert handle(dropped) == []
    answer = result(dropped)
    assert (answer["status"], answer["label"], answer["probability"]) == ("unknown", None, 0.9)
    assert answer["predictions"] == endpoint.predictions
    assert answer["reason"]["code"] == "BelowConfidence"
    assert endpoint.events[0]["DetailType"] == "ImageClassified"
    monkeypatch.setenv("UNKNOWN_BELOW", "0.9")
    handle(at_it := drop("inbox/b.jpg", JPEG))
    assert result(at_it)["label"] == "collie"


@pytest.mark.parametrize(("threshold", "below", "status"), [(0.91, "", "unknown"), (0.91, "0", "classified")])
def test_the_models_own_confidence_counts_unless_another_is_set(
    drop, handle, result, endpoint, monkeypatch, threshold, below, status
):
    monkeypatch.setenv("UNKNOWN_BELOW", below)
    endpoint.model = endpoint.model | {"confidence_threshold": threshold}
    handle(dropped := drop("inbox/a.jpg", JPEG))
    assert result(dropped)["status"] == status


def test_a_model_older_than_this_stack_is_asked_all_the_same(drop, handle, result, endpoint):
    endpoint.model = {name: endpoint.model[name] for name in ("run_id", "weights_sha256")}
    dropped = drop("inbox/a.jpg", JPEG)
    assert handle(dropped) == []
    answered = result(dropped)["model"]
    assert (answered["confidence_threshold"], answered["package_arn"]) == (0, None)


def test_two_versions_of_one_key_get_two_answers(drop, handle, results):
    handle(drop("inbox/a.jpg", JPEG), drop("inbox/a.jpg", PNG))
    assert len(results()) == 2


def test_without_versions_the_etag_takes_their_place(drop, handle, record, result):
    dropped = drop("inbox/a.jpg", JPEG)
    etag = dropped["s3"]["object"]["eTag"]
    assert handle(unversioned := record("inbox/a.jpg", None, etag)) == []
    assert result(unversioned)["object_version"] == etag


def test_an_object_that_is_gone_is_not_waited_for(handle, record, results):
    assert handle(record("inbox/none.jpg", None, "0" * 32)) == []
    assert results() == []


def test_what_is_no_image_in_the_inbox_is_left_alone(drop, handle, handle_bodies, record, results):
    folder = drop("inbox/folder/", b"")
    elsewhere = record("datasets/dogs/a.jpg", None, "0" * 32)
    deleted = record("inbox/a.jpg", None, "0" * 32, name="ObjectRemoved:Delete")
    assert handle(folder, elsewhere, deleted) == []
    assert handle_bodies(json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "kelpie"})) == []
    assert results() == []
