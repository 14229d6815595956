"""The inbox of a deployed stack, its model served by Ray: objects of any name, and what the command says of them."""

import hashlib
import json
from urllib.parse import quote_plus

import pytest

pytestmark = pytest.mark.slow

KEYS = (
    "inbox/two words.jpg",
    "inbox/a+b=c&d.jpg",
    "inbox/100% %2B.jpg",
    "inbox/🐕/犬 и собака.jpg",
    "inbox/" + "d" * 900,
)


@pytest.fixture(scope="module")
def owl(live):
    return (live.folder / "photos" / "test" / "owl" / "002.jpg").read_bytes()


@pytest.fixture(scope="module")
def drop(session, outputs, owl):
    """Put an owl into the inbox; return its version."""
    return lambda key: session.client("s3").put_object(Bucket=outputs["Bucket"], Key=key, Body=owl)["VersionId"]


@pytest.fixture(scope="module")
def result(session, outputs, until):
    """Wait for the result of a version of a key."""
    s3 = session.client("s3")

    def read(at):
        try:
            return json.loads(s3.get_object(Bucket=outputs["Bucket"], Key=at)["Body"].read())
        except s3.exceptions.NoSuchKey:
            return None

    return lambda key, version: until(lambda: read(at(key, version)))


def at(key, version):
    return f"results/{hashlib.sha256(key.encode()).hexdigest()}/{version}.json"


def test_objects_of_any_name_are_answered_by_the_model_of_the_run(trained, drop, result):
    versions = {key: drop(key) for key in KEYS}
    answers = [result(key, version) for key, version in versions.items()]
    assert [answer["key"] for answer in answers] == list(KEYS)
    assert {answer["status"] for answer in answers} <= {"classified", "unknown"}
    for answer in answers:
        assert answer["model"]["run_id"] == trained["run_id"]
        assert answer["predictions"] == answers[0]["predictions"]
        assert answer["timings_ms"].keys() == {"fetch", "convert", "invoke"}


def test_what_is_dead_is_counted_and_answered_once_it_is_redriven(trained, live, session, outputs, drop, result, until):
    assert trained["status"] == "SUCCEEDED"
    key = "inbox/was given+up.jpg"
    version = drop(key)
    answer = result(key, version)
    unlucky = {"status": "failed", "label": None, "probability": None, "predictions": [], "model": None}
    reason = {"code": "GivenUp", "message": "out of memory"}
    s3, place = session.client("s3"), {"Bucket": outputs["Bucket"], "Key": at(key, version)}
    s3.put_object(**place, Body=json.dumps(answer | unlucky | {"reason": reason}).encode())
    stored = {"key": quote_plus(key), "versionId": version, "eTag": "0" * 32, "size": answer["bytes"]}
    record = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": outputs["Bucket"]}, "object": stored}}
    message = json.dumps({"Records": [record]})
    session.client("sqs").send_message(QueueUrl=outputs["DeadLetterQueueUrl"], MessageBody=message)

    inbox = json.loads(live.ok("inbox", "--json"))
    assert (inbox["dead"], inbox["failed"]) == (1, 1)
    assert {"key": key, "status": "failed", "reason": reason} in inbox["reasons"]
    assert "kelpie inbox --redrive" in live.ok("inbox")
    live.ok("inbox", "--redrive")
    until(lambda: result(key, version)["predictions"] == answer["predictions"])

    def left():  # a message is deleted after its result is there
        after = json.loads(live.ok("inbox", "--json"))
        return [after[name] for name in ("dead", "failed", "waiting")]

    until(lambda: left() == [0, 0, 0], left)
