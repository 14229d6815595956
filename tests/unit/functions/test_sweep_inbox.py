import hashlib
import json
import sys
from types import SimpleNamespace
from urllib.parse import unquote_plus

import pytest

BUCKET = "kelpie-123456789012-eu-west-1"
KEYS = ["inbox/a.jpg", "inbox/my dog+cat 100%.jpg", "inbox/😀.jpg", "inbox/" + "d" * 900]


@pytest.fixture
def queue(aws):
    client = aws("sqs")
    url = client.create_queue(QueueName="inbox")["QueueUrl"]

    def received():
        bodies = []
        while messages := client.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            bodies += [json.loads(message["Body"]) for message in messages]
        return bodies

    return SimpleNamespace(url=url, received=received)


@pytest.fixture
def sweep(load, monkeypatch, s3, queue):
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    variables = {
        "BUCKET": BUCKET,
        "INBOX_QUEUE_URL": queue.url,
        "MOST_CHECKED": "1000",
        "MOST_WAITING": "10000",
        "YOUNGEST_MINUTES": "0",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    app = load("sweep_inbox")

    def sweep(remaining_ms=900_000):
        return app.handler({}, SimpleNamespace(get_remaining_time_in_millis=lambda: remaining_ms))

    return sweep


@pytest.fixture
def drop(s3):
    return lambda key, body=b"x": s3.put_object(Bucket=BUCKET, Key=key, Body=body)["VersionId"]


@pytest.fixture
def answer(s3):
    def answer(key, version):
        digest = hashlib.sha256(key.encode()).hexdigest()
        s3.put_object(Bucket=BUCKET, Key=f"results/{digest}/{version}.json", Body=b"{}")

    return answer


@pytest.fixture
def small_pages(sweep, monkeypatch):  # noqa: ARG001 - it has imported the function
    monkeypatch.setattr(sys.modules["app"], "VERSIONS_A_PAGE", 2)


def test_what_has_no_result_is_queued_as_s3_would_have_done(sweep, drop, answer, queue, load, example):  # noqa: ARG001
    versions = {key: drop(key) for key in KEYS}
    answer(KEYS[0], versions[KEYS[0]])
    assert sweep() == {"checked": 4, "queued": 3, "ended": "reached the end", "next_key": None}
    found = {}
    arrivals = load("classify_image", "messages").arrivals
    for body in queue.received():
        (arrival,) = arrivals(body)
        found[arrival.key] = arrival.object_version
        assert unquote_plus(body["Records"][0]["s3"]["object"]["key"]) == arrival.key
    assert found == {key: versions[key] for key in KEYS[1:]}


def test_each_version_is_looked_for_and_folders_and_deletions_are_not(sweep, drop, answer, queue, s3):
    first, second = drop("inbox/a.jpg", b"1"), drop("inbox/a.jpg", b"2")
    drop("inbox/folder/")
    drop("datasets/a.jpg")
    s3.delete_object(Bucket=BUCKET, Key="inbox/a.jpg")
    answer("inbox/a.jpg", second)
    assert sweep()["queued"] == 1
    assert queue.received()[0]["Records"][0]["s3"]["object"]["versionId"] == first


def test_the_result_is_looked_for_where_it_is_written(load, s3):  # noqa: ARG001 - AWS is played by moto
    key, version = "inbox/my dog.jpg", "v1"
    written = load("classify_image", "messages").Arrival(BUCKET, key, version, version, 0).result_key
    assert load("sweep_inbox").result_key({"Key": key, "VersionId": version}) == written


def test_a_sweep_goes_on_where_the_last_one_ended_and_then_begins_anew(sweep, drop, queue, monkeypatch, small_pages):  # noqa: ARG001
    for number in range(5):
        drop(f"inbox/{number}.jpg")
    monkeypatch.setenv("MOST_CHECKED", "2")
    assert [sweep()["queued"] for _ in range(3)] == [2, 2, 1]
    keys = [body["Records"][0]["s3"]["object"]["key"] for body in queue.received()]
    assert sorted(keys) == [f"inbox%2F{number}.jpg" for number in range(5)]
    assert sweep()["next_key"] == "inbox/1.jpg"


def test_pages_are_followed_in_one_sweep(sweep, drop, small_pages):  # noqa: ARG001
    for number in range(5):
        drop(f"inbox/{number}.jpg")
    assert sweep() == {"checked": 5, "queued": 5, "ended": "reached the end", "next_key": None}


def test_more_than_one_request_holds_are_all_queued(sweep, drop, queue):
    for number in range(23):
        drop(f"inbox/{number}.jpg")
    assert sweep()["queued"] == 23
    assert len({body["Records"][0]["s3"]["object"]["key"] for body in queue.received()}) == 23


def test_where_the_queue_refuses_some_the_same_page_is_swept_again(sweep, drop, monkeypatch):
    drop("inbox/a.jpg")
    app = sys.modules["app"]
    answer = {"Failed": [{"Id": "0", "Code": "InternalError", "SenderFault": False}]}
    monkeypatch.setattr(app.client("sqs"), "send_message_batch", lambda **_: answer)
    with pytest.raises(app.NotQueued, match="1 of 1 messages were not taken"):
        sweep()
    monkeypatch.undo()
    assert app.read_markers(app.client("s3"), f"s3://{BUCKET}/{app.STATE_KEY}") == {}


def test_what_has_only_just_come_is_left_to_its_event(sweep, drop, monkeypatch):
    drop("inbox/a.jpg")
    monkeypatch.setenv("YOUNGEST_MINUTES", "15")
    assert sweep()["queued"] == 0


def test_nothing_is_added_to_a_queue_that_holds_enough(sweep, drop, monkeypatch, small_pages):  # noqa: ARG001
    for number in range(5):
        drop(f"inbox/{number}.jpg")
    monkeypatch.setenv("MOST_WAITING", "2")
    assert sweep()["ended"] == "enough is waiting"
    assert sweep() == {"checked": 0, "queued": 0, "ended": "enough is waiting", "next_key": "inbox/1.jpg"}


def test_a_sweep_without_time_changes_nothing(sweep, drop, queue):
    drop("inbox/a.jpg")
    assert sweep(remaining_ms=29_000)["ended"] == "out of time"
    assert queue.received() == []


def test_a_state_that_cannot_be_read_begins_anew(sweep, drop, s3):
    drop("inbox/a.jpg")
    s3.put_object(Bucket=BUCKET, Key="sweep/inbox.json", Body=b"not JSON")
    assert sweep()["queued"] == 1


def test_an_empty_inbox_is_swept(sweep):
    assert sweep() == {"checked": 0, "queued": 0, "ended": "reached the end", "next_key": None}
