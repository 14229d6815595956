import hashlib
import io
import json
import struct
from types import SimpleNamespace
from urllib.parse import quote_plus, unquote_plus

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

BUCKET = "kelpie-123456789012-eu-west-1"
PNG = b"\x89PNG\r\n\x1a\n rest"
JPEG = b"\xff\xd8\xff\xe0 rest"
PREDICTIONS = [{"label": "collie", "probability": 0.9}, {"label": "kelpie", "probability": 0.1}]
MODEL = {
    "run_id": "3f2a9c0d1e4b",
    "weights_sha256": "0" * 64,
    "confidence_threshold": 0.5,
    "package_arn": "arn:aws:sagemaker:eu-west-1:123456789012:model-package/kelpie/7",
}


class Endpoint:
    """The endpoint's runtime, the bus and the queue."""

    def __init__(self):
        self.asked, self.events, self.error, self.failed_entries, self.sent = [], [], None, 0, []
        self.model = MODEL

    def invoke_endpoint(self, EndpointName, ContentType, Accept, Body):  # noqa: N803 - AWS's names
        assert (EndpointName, Accept) == ("kelpie", "application/json")
        self.asked.append((ContentType, Body))
        if self.error:
            raise self.error
        return {"Body": io.BytesIO(json.dumps({"predictions": PREDICTIONS, "model": self.model}).encode())}

    def send_message(self, **message):
        assert message["QueueUrl"] == "the-queue"
        self.sent.append(message)

    def put_events(self, Entries):  # noqa: N803 - AWS's name
        self.events += Entries
        return {"FailedEntryCount": self.failed_entries, "Entries": [{"ErrorCode": "Throttled"}]}


@pytest.fixture
def endpoint():
    return Endpoint()


@pytest.fixture
def app(load, monkeypatch, s3, endpoint):
    monkeypatch.setenv("ENDPOINT_NAME", "kelpie")
    monkeypatch.setenv("SHORT_SIDE_PX", "512")
    monkeypatch.setenv("INBOX_QUEUE_URL", "the-queue")
    monkeypatch.setenv("UNKNOWN_BELOW", "")
    monkeypatch.setenv("MOST_RECEIVES", "5")
    monkeypatch.setenv("TAG_OBJECTS", "false")
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    app = load("classify_image")
    clients = {"s3": s3, "sagemaker-runtime": endpoint, "events": endpoint, "sqs": endpoint}
    monkeypatch.setattr(app, "client", clients.__getitem__)
    return app


@pytest.fixture
def drop(app, s3):  # noqa: ARG001 - versions are on
    """Put an object into the inbox and return S3's record of it."""

    def drop(key, body, **more):
        stored = s3.put_object(Bucket=BUCKET, Key=key, Body=body, **more)
        return record(key, stored["VersionId"], stored["ETag"])

    return drop


def record(key, version_id, etag, name="ObjectCreated:Put"):
    stored = {"key": quote_plus(key), "eTag": etag.strip('"')} | ({"versionId": version_id} if version_id else {})
    return {"eventName": name, "s3": {"bucket": {"name": BUCKET}, "object": stored}}


def messages(*bodies, receives=1, held=0, first=0):
    counted = {"ApproximateReceiveCount": str(receives)}
    attributes = {"Held": {"stringValue": str(held), "dataType": "Number"}} if held else {}
    return {
        "Records": [
            {
                "messageId": f"m{number}",
                "body": json.dumps(body),
                "eventSource": "aws:sqs",
                "attributes": counted,
                "messageAttributes": attributes,
            }
            for number, body in enumerate(bodies, first)
        ]
    }


@pytest.fixture
def context():
    return SimpleNamespace(get_remaining_time_in_millis=lambda: 120_000)


@pytest.fixture
def handle(app, context):
    """Handle one message a record; return the identifiers of those that are to come again."""

    def handle(*records, **counts):
        answer = app.handler(messages(*({"Records": [one]} for one in records), **counts), context)
        return [item["itemIdentifier"] for item in answer["batchItemFailures"]]

    return handle


@pytest.fixture
def result(get):
    def result(key, version):
        return get(f"s3://{BUCKET}/results/{hashlib.sha256(key.encode()).hexdigest()}/{version}.json")

    return result


@pytest.fixture
def results(s3):
    return lambda: s3.list_objects_v2(Bucket=BUCKET, Prefix="results/").get("Contents", [])


def model_error(status, message):
    response = {"Error": {"Code": "ModelError"}, "OriginalStatusCode": status, "OriginalMessage": message}
    return ClientError(response, "InvokeEndpoint")


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
    answer = result(key, dropped["s3"]["object"]["versionId"])
    assert (answer["key"], answer["status"], answer["label"], answer["probability"]) == (
        key,
        "classified",
        "collie",
        0.9,
    )
    assert answer["predictions"] == PREDICTIONS
    assert answer["model"] == MODEL
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
    answer = result("inbox/a.jpg", dropped["s3"]["object"]["versionId"])
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
    answer = result("inbox/a.jpg", dropped["s3"]["object"]["versionId"])
    assert (answer["status"], answer["reason"]["code"], answer["content_type"]) == ("rejected", "TooLarge", None)
    assert "at most 4 are read" in answer["reason"]["message"]


def test_an_image_of_another_format_is_asked_as_png(drop, handle, result, endpoint):
    bitmap = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 58, 0, 0, 54, 40, 1, 1, 1, 24, *[0] * 6) + b"\xff\0\0\0"
    dropped = drop("inbox/a.jpg", bitmap)
    assert handle(dropped) == []
    assert result("inbox/a.jpg", dropped["s3"]["object"]["versionId"])["content_type"] == "image/bmp"
    ((content_type, body),) = endpoint.asked
    assert (content_type, body[:4]) == ("image/png", b"\x89PNG")


def test_the_largest_body_that_the_endpoint_takes_is_sent(drop, handle, endpoint):
    body = JPEG + b"\0" * (6_291_456 - len(JPEG))
    assert handle(drop("inbox/a.jpg", body)) == []
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize("status", [400, 413, 415])
def test_a_refusal_of_the_model_is_a_rejection_with_its_reason(drop, handle, result, endpoint, status):
    endpoint.error = model_error(status, json.dumps({"error": "UnreadableImage", "reason": "truncated"}))
    dropped = drop("inbox/a.jpg", JPEG)
    assert handle(dropped) == []
    reason = result("inbox/a.jpg", dropped["s3"]["object"]["versionId"])["reason"]
    assert reason == {"code": "UnreadableImage", "message": "truncated"}


@pytest.mark.parametrize("message", ["<html>", '{"detail": 1}', "[]", '"text"'])
def test_a_refusal_in_another_form_is_a_rejection_too(drop, handle, result, endpoint, message):
    endpoint.error = model_error(413, message)
    dropped = drop("inbox/a.jpg", JPEG)
    assert handle(dropped) == []
    reason = result("inbox/a.jpg", dropped["s3"]["object"]["versionId"])["reason"]
    assert reason == {"code": "RefusedByModel", "message": message}


TROUBLE = [
    model_error(429, "busy"),
    model_error(503, "no capacity"),
    model_error(0, "the process exited"),
    model_error(500, "boom"),
    ClientError({"Error": {"Code": "ValidationError", "Message": "Endpoint kelpie not found"}}, "InvokeEndpoint"),
    ClientError({"Error": {"Code": "ThrottlingException"}}, "InvokeEndpoint"),
    ClientError({"Error": {"Code": "ServiceUnavailable"}}, "InvokeEndpoint"),
    ReadTimeoutError(endpoint_url="https://runtime"),
]


@pytest.mark.parametrize("error", TROUBLE)
def test_while_the_endpoint_is_in_trouble_messages_wait_as_new_ones(drop, handle, results, endpoint, error):
    endpoint.error = error
    first, second = drop("inbox/a.jpg", JPEG), drop("inbox/b.jpg", JPEG)
    assert handle(first, second) == []
    assert results() == []
    assert endpoint.events == []
    assert [json.loads(message["MessageBody"])["Records"][0] for message in endpoint.sent] == [first, second]
    assert all(2 <= message["DelaySeconds"] <= 4 for message in endpoint.sent)
    assert all(message["MessageAttributes"]["Held"]["StringValue"] == "1" for message in endpoint.sent)
    assert len(endpoint.asked) == 1  # the rest of the batch is not tried on it


def test_the_longer_the_trouble_the_longer_the_wait_up_to_what_sqs_allows(drop, handle, endpoint):
    endpoint.error = TROUBLE[0]
    dropped = drop("inbox/a.jpg", JPEG)
    for held in (0, 3, 8, 99):
        handle(dropped, held=held)
    delays = [message["DelaySeconds"] for message in endpoint.sent]
    assert [2 <= delays[0] <= 4, 16 <= delays[1] <= 32, 450 <= delays[2] <= 900, 450 <= delays[3] <= 900] == [True] * 4
    assert endpoint.sent[-1]["MessageAttributes"]["Held"]["StringValue"] == "99"


def test_what_was_held_back_is_answered_once_the_endpoint_is_there(drop, handle, results, endpoint):
    assert handle(drop("inbox/a.jpg", JPEG), held=40) == []
    assert len(results()) == 1
    assert endpoint.sent == []


def test_a_batch_that_runs_out_of_time_waits_untried(drop, app, results, endpoint):
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: 44_000)
    answer = app.handler(messages({"Records": [drop("inbox/a.jpg", JPEG)]}), context)
    assert answer == {"batchItemFailures": []}
    assert (endpoint.asked, results()) == ([], [])
    assert len(endpoint.sent) == 1


def test_a_queue_that_takes_nothing_brings_the_message_itself_again(drop, handle, endpoint, monkeypatch):
    endpoint.error = TROUBLE[0]

    def refuse(**_):
        raise ClientError({"Error": {"Code": "ServiceUnavailable"}}, "SendMessage")

    monkeypatch.setattr(endpoint, "send_message", refuse)
    assert handle(drop("inbox/a.jpg", JPEG), drop("inbox/b.jpg", JPEG)) == ["m0", "m1"]


@pytest.mark.parametrize(
    ("error", "held"),
    [
        (model_error(500, "boom"), 6),
        (model_error(404, "no such route"), 0),
        (ClientError({"Error": {"Code": "AccessDeniedException"}}, "InvokeEndpoint"), 0),
    ],
)
def test_a_failure_of_the_message_is_counted_and_its_reason_becomes_the_result(
    drop, handle, result, results, endpoint, error, held
):
    endpoint.error = error
    dropped = drop("inbox/a.jpg", JPEG)
    for receives in (1, 2, 3):
        assert handle(dropped, receives=receives, held=held) == ["m0"]
        assert results() == []
    for receives in (4, 5):
        assert handle(dropped, receives=receives, held=held) == ["m0"]
    answer = result("inbox/a.jpg", dropped["s3"]["object"]["versionId"])
    assert (answer["status"], answer["reason"]["code"]) == ("failed", "ClientError")
    assert len(endpoint.asked) == 4
    assert {event["DetailType"] for event in endpoint.events} == {"ImageRejected"}


def test_what_ends_the_function_each_time_is_not_tried_a_fifth_time(drop, handle, result, endpoint):
    dropped = drop("inbox/a.jpg", JPEG)
    assert handle(dropped, receives=5) == ["m0"]
    assert endpoint.asked == []
    answer = result("inbox/a.jpg", dropped["s3"]["object"]["versionId"])
    assert (answer["status"], answer["reason"]["code"]) == ("failed", "GivenUp")
    assert answer["bytes"] == 0


def test_below_the_confidence_asked_for_the_answer_is_unknown(drop, handle, result, endpoint, monkeypatch):
    monkeypatch.setenv("UNKNOWN_BELOW", "0.95")
    dropped = drop("inbox/a.jpg", JPEG)
    assert handle(dropped) == []
    answer = result("inbox/a.jpg", dropped["s3"]["object"]["versionId"])
    assert (answer["status"], answer["label"], answer["probability"]) == ("unknown", None, 0.9)
    assert answer["predictions"] == PREDICTIONS
    assert answer["reason"]["code"] == "BelowConfidence"
    assert endpoint.events[0]["DetailType"] == "ImageClassified"
    monkeypatch.setenv("UNKNOWN_BELOW", "0.9")
    handle(at_it := drop("inbox/b.jpg", JPEG))
    assert result("inbox/b.jpg", at_it["s3"]["object"]["versionId"])["label"] == "collie"


@pytest.mark.parametrize(("threshold", "below", "status"), [(0.91, "", "unknown"), (0.91, "0", "classified")])
def test_the_models_own_confidence_counts_unless_another_is_set(
    drop, handle, result, endpoint, monkeypatch, threshold, below, status
):
    monkeypatch.setenv("UNKNOWN_BELOW", below)
    endpoint.model = MODEL | {"confidence_threshold": threshold}
    handle(dropped := drop("inbox/a.jpg", JPEG))
    assert result("inbox/a.jpg", dropped["s3"]["object"]["versionId"])["status"] == status


def test_a_model_older_than_this_stack_is_asked_all_the_same(drop, handle, result, endpoint):
    endpoint.model = {name: MODEL[name] for name in ("run_id", "weights_sha256")}
    dropped = drop("inbox/a.jpg", JPEG)
    assert handle(dropped) == []
    answered = result("inbox/a.jpg", dropped["s3"]["object"]["versionId"])["model"]
    assert (answered["confidence_threshold"], answered["package_arn"]) == (0, None)


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


def test_one_bad_message_does_not_bring_the_others_again(drop, app, context, results):
    good = {"Records": [drop("inbox/a.jpg", JPEG)]}
    event = messages(good, good)
    event["Records"][1]["body"] = "not JSON"
    answer = app.handler(event, context)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "m1"}]}
    assert len(results()) == 1


def test_a_doubled_notification_changes_nothing_and_is_not_announced_twice(drop, handle, result, results, endpoint):
    dropped = drop("inbox/a.jpg", JPEG)
    handle(dropped)
    first = result("inbox/a.jpg", dropped["s3"]["object"]["versionId"])
    endpoint.error = model_error(400, "now it is refused")
    assert handle(dropped, first=1) == []  # another message
    assert result("inbox/a.jpg", dropped["s3"]["object"]["versionId"]) == first
    assert len(results()) == 1
    assert len(endpoint.events) == 1


def test_a_result_whose_writing_had_no_reply_is_announced(drop, handle, endpoint):
    """botocore writes again by itself then, and is told that there is a result: that of this very message."""
    dropped = drop("inbox/a.jpg", JPEG)
    handle(dropped)
    endpoint.events.clear()
    assert handle(dropped) == []
    assert len(endpoint.events) == 1


def test_a_message_received_again_is_announced_again_with_the_same_id(drop, handle, results, endpoint):
    dropped = drop("inbox/a.jpg", JPEG)
    handle(dropped)
    assert handle(dropped, receives=2) == []
    assert len(results()) == 1
    assert len(endpoint.asked) == 1
    assert len(endpoint.events) == 2
    assert len({json.loads(event["Detail"])["id"] for event in endpoint.events}) == 1


def test_two_versions_of_one_key_get_two_answers(drop, handle, results):
    handle(drop("inbox/a.jpg", JPEG), drop("inbox/a.jpg", PNG))
    assert len(results()) == 2


def test_without_versions_the_etag_takes_their_place(drop, handle, result):
    dropped = drop("inbox/a.jpg", JPEG)
    etag = dropped["s3"]["object"]["eTag"]
    assert handle(record("inbox/a.jpg", None, etag)) == []
    assert result("inbox/a.jpg", etag)["object_version"] == etag


def test_an_object_that_is_gone_is_not_waited_for(handle, results, app):  # noqa: ARG001 - the bucket has versions
    assert handle(record("inbox/none.jpg", None, "0" * 32)) == []
    assert results() == []


def test_what_is_no_image_in_the_inbox_is_left_alone(drop, handle, app, context, results):
    folder = drop("inbox/folder/", b"")
    elsewhere = record("datasets/dogs/a.jpg", None, "0" * 32)
    deleted = record("inbox/a.jpg", None, "0" * 32, name="ObjectRemoved:Delete")
    assert handle(folder, elsewhere, deleted) == []
    test_event = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": BUCKET}
    assert app.handler(messages(test_event), context) == {"batchItemFailures": []}
    assert results() == []


def test_an_event_that_is_not_taken_brings_the_message_again(drop, handle, endpoint, results):
    endpoint.failed_entries = 1
    dropped = drop("inbox/a.jpg", JPEG)
    assert handle(dropped) == ["m0"]
    endpoint.failed_entries = 0
    assert handle(dropped, receives=2) == []
    assert len(results()) == 1
