"""What `kelpie inbox` tells of queues and results, and another try for what was given up."""

import json
from pathlib import Path

import pytest

from kelpie import inbox, letters

EXAMPLE = json.loads((Path(__file__).parents[3] / "contracts" / "examples" / "classification.json").read_text())
REASON = {"code": "GivenUp", "message": "the function ended without an answer"}


@pytest.fixture(autouse=True)
def queues(stack):
    for name in ("InboxQueueUrl", "DeadLetterQueueUrl"):
        stack.outputs[name] = stack.client("sqs").create_queue(QueueName=name)["QueueUrl"]


def write(stack, key, status):
    reason = None if status == "classified" else REASON
    result = EXAMPLE | {"key": key, "status": status, "reason": reason}
    at = inbox.result_key(key, "v1")
    stack.client("s3").put_object(Bucket="bucket", Key=at, Body=json.dumps(result))
    return at


def send(stack, output, body):
    stack.client("sqs").send_message(QueueUrl=stack.outputs[output], MessageBody=body)


def notification(key):
    stored = {"key": key, "versionId": "v1", "eTag": "e"}
    return json.dumps({"Records": [{"s3": {"bucket": {"name": "bucket"}, "object": stored}}]})


def test_it_counts_what_waits_what_is_answered_and_what_is_dead(stack):
    for key, status in (("a", "classified"), ("b", "classified"), ("c", "rejected"), ("d", "failed"), ("e", "unknown")):
        write(stack, f"inbox/{key}", status)
    send(stack, "InboxQueueUrl", "1")
    for body in "12":
        send(stack, "DeadLetterQueueUrl", body)
    told = letters.read(stack)
    reasons = told.pop("reasons")
    assert told == {
        "waiting": 1,
        "dead": 2,
        "results": 5,
        "read": 5,
        "classified": 2,
        "unknown": 1,
        "rejected": 1,
        "failed": 1,
    }
    assert {(one["key"], one["reason"]["code"]) for one in reasons} == {
        ("inbox/c", "GivenUp"),
        ("inbox/d", "GivenUp"),
        ("inbox/e", "GivenUp"),
    }


def test_only_the_newest_results_are_read(stack, monkeypatch):
    monkeypatch.setattr(letters, "MOST_READ", 2)
    for key in "abc":
        write(stack, f"inbox/{key}", "classified")
    told = letters.read(stack)
    assert (told["results"], told["read"], told["classified"]) == (3, 2, 2)


def test_an_inbox_of_which_nothing_is_known_is_all_noughts(stack):
    told = letters.read(stack)
    assert told.pop("reasons") == []
    assert set(told.values()) == {0}
    assert letters.redrive(stack) == 0


def test_what_is_dead_is_tried_again_without_its_failed_result(stack):
    failed, classified = write(stack, "inbox/my dog.jpg", "failed"), write(stack, "inbox/b.jpg", "classified")
    bodies = [notification("inbox%2Fmy+dog.jpg"), notification("inbox%2Fb.jpg"), "not JSON"]
    for body in bodies:
        send(stack, "DeadLetterQueueUrl", body)
    assert letters.redrive(stack) == 3
    told = letters.read(stack)
    assert (told["waiting"], told["dead"], told["failed"], told["classified"]) == (3, 0, 0, 1)
    keys = [found["Key"] for found in stack.client("s3").list_objects_v2(Bucket="bucket")["Contents"]]
    assert failed not in keys
    assert classified in keys
