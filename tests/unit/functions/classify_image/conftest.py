"""The function that classifies, between a bucket by moto and stand-ins for the endpoint, the bus and the queues."""

import contextlib
import hashlib
import io
import json
from types import SimpleNamespace
from urllib.parse import quote_plus, unquote_plus

import pytest
from botocore.exceptions import ClientError

BUCKET = "kelpie-123456789012-eu-west-1"
PREDICTIONS = [{"label": "collie", "probability": 0.9}, {"label": "kelpie", "probability": 0.1}]
MODEL = {
    "run_id": "3f2a9c0d1e4b",
    "weights_sha256": "0" * 64,
    "confidence_threshold": 0.5,
    "package_arn": "arn:aws:sagemaker:eu-west-1:123456789012:model-package/kelpie/7",
}


class Endpoint:
    """The endpoint's runtime, the bus and the queues."""

    class Killed(BaseException):
        """The function's process has ended."""

    def __init__(self):
        self.asked, self.events, self.error, self.failed_entries = [], [], None, 0
        self.sent, self.dead = [], []
        self.predictions, self.model = PREDICTIONS, MODEL
        self.killed_before, self.killed_after = None, None

    def refuses(self, status, message):
        response = {"Error": {"Code": "ModelError"}, "OriginalStatusCode": status, "OriginalMessage": message}
        self.error = ClientError(response, "InvokeEndpoint")

    def invoke_endpoint(self, EndpointName, ContentType, Accept, Body):  # noqa: N803 - AWS's names
        assert (EndpointName, Accept) == ("kelpie", "application/json")
        self.asked.append((ContentType, Body))
        if self.error:
            raise self.error
        return {"Body": io.BytesIO(json.dumps({"predictions": self.predictions, "model": self.model}).encode())}

    def send_message(self, **message):
        with self._killing("send_message"):
            {"the-queue": self.sent, "the-dead": self.dead}[message["QueueUrl"]].append(message)

    def put_events(self, Entries):  # noqa: N803 - AWS's name
        with self._killing("put_events"):
            self.events += [] if self.failed_entries else Entries
        return {"FailedEntryCount": self.failed_entries, "Entries": [{"ErrorCode": "Throttled"}]}

    @contextlib.contextmanager
    def _killing(self, action):
        """Once."""
        if self.killed_before == action:
            self.killed_before = None
            raise self.Killed
        yield
        if self.killed_after == action:
            self.killed_after = None
            raise self.Killed


@pytest.fixture
def endpoint():
    return Endpoint()


@pytest.fixture
def app(load, monkeypatch, s3, endpoint):
    monkeypatch.setenv("ENDPOINT_NAME", "kelpie")
    monkeypatch.setenv("SHORT_SIDE_PX", "512")
    monkeypatch.setenv("INBOX_QUEUE_URL", "the-queue")
    monkeypatch.setenv("DEAD_LETTER_QUEUE_URL", "the-dead")
    monkeypatch.setenv("UNKNOWN_BELOW", "")
    monkeypatch.setenv("MOST_TRIES", "4")
    monkeypatch.setenv("TAG_OBJECTS", "false")
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    app = load("classify_image")
    clients = {"s3": s3, "sagemaker-runtime": endpoint, "events": endpoint, "sqs": endpoint}
    monkeypatch.setattr(app, "client", lambda service, _config=None: clients[service])
    return app


@pytest.fixture
def context():
    return SimpleNamespace(get_remaining_time_in_millis=lambda: 120_000)


@pytest.fixture
def record():
    """S3's record of an object."""

    def record(key, version_id, etag, name="ObjectCreated:Put"):
        stored = {"key": quote_plus(key), "eTag": etag.strip('"')} | ({"versionId": version_id} if version_id else {})
        return {"eventName": name, "s3": {"bucket": {"name": BUCKET}, "object": stored}}

    return record


@pytest.fixture
def drop(app, s3, record):  # noqa: ARG001 - versions are on
    """Put an object into the inbox and return S3's record of it."""

    def drop(key, body, **more):
        stored = s3.put_object(Bucket=BUCKET, Key=key, Body=body, **more)
        return record(key, stored["VersionId"], stored["ETag"])

    return drop


@pytest.fixture
def handle_bodies(app, context):
    """Handle messages of these bodies in one batch; return the identifiers of those that are to come again."""

    def handle_bodies(*bodies, receives=1, attributes=None, first=0):
        told = {name: {key[0].lower() + key[1:]: value for key, value in one.items()} for name, one in attributes or ()}
        messages = [
            {
                "messageId": f"m{number}",
                "body": body,
                "eventSource": "aws:sqs",
                "attributes": {"ApproximateReceiveCount": str(receives)},
                "messageAttributes": told,
            }
            for number, body in enumerate(bodies, first)
        ]
        return [item["itemIdentifier"] for item in app.handler({"Records": messages}, context)["batchItemFailures"]]

    return handle_bodies


@pytest.fixture
def handle(handle_bodies):
    """Handle one message a record, as S3 sends it."""

    def handle(*records, held=0, **options):
        attributes = {"Held": {"StringValue": str(held), "DataType": "Number"}} if held else {}
        bodies = [json.dumps({"Records": [one]}) for one in records]
        return handle_bodies(*bodies, attributes=attributes.items(), **options)

    return handle


@pytest.fixture
def handle_sent(handle_bodies, endpoint):
    """Handle what the function has sent to its queue, each as a message of its own."""

    def handle_sent(**options):
        sent, endpoint.sent = endpoint.sent, []
        for number, message in enumerate(sent, 100):
            attributes = message["MessageAttributes"].items()
            assert handle_bodies(message["MessageBody"], attributes=attributes, first=number, **options) == []

    return handle_sent


@pytest.fixture
def result(get):
    """The result of a record's object."""

    def result(record):
        stored = record["s3"]["object"]
        digest = hashlib.sha256(unquote_plus(stored["key"]).encode()).hexdigest()
        return get(f"s3://{BUCKET}/results/{digest}/{stored.get('versionId') or stored['eTag']}.json")

    return result


@pytest.fixture
def results(s3):
    return lambda: s3.list_objects_v2(Bucket=BUCKET, Prefix="results/").get("Contents", [])
