import http.server
import json
import threading
from types import SimpleNamespace

import pytest

BUCKET = "kelpie-123456789012-eu-west-1"
PATIENT = SimpleNamespace(get_remaining_time_in_millis=lambda: 900_000)


class NoEndpoints:
    """SageMaker without the endpoints that are to be deleted, which moto answers as SageMaker does not."""

    def __init__(self):
        self.deleted = []

    def delete_endpoint(self, EndpointName):  # noqa: N803 - AWS's name
        self.deleted.append(EndpointName)


@pytest.fixture
def app(load):
    return load("clear_up")


@pytest.fixture
def filled(s3):
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    for key in ("inbox/a ü.jpg", "inbox/a ü.jpg", "endpoints/kelpie/champion.json", "endpoints/kelpie/other.json"):
        s3.put_object(Bucket=BUCKET, Key=key, Body=b"x")
    s3.delete_object(Bucket=BUCKET, Key="inbox/a ü.jpg")
    return s3


@pytest.fixture
def answers(monkeypatch):
    """Where CloudFormation waits: (URL, what it was told)."""
    told = []

    class Listener(http.server.BaseHTTPRequestHandler):
        def do_PUT(self):
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_arguments):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.HTTPServer(("127.0.0.1", 0), Listener)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", told
    server.shutdown()
    thread.join()
    server.server_close()


def event(request_type, on_stack_deletion, url, bucket=BUCKET):
    return {
        "RequestType": request_type,
        "ResponseURL": url,
        "StackId": "arn:aws:cloudformation:eu-west-1:123456789012:stack/kelpie/1",
        "RequestId": "r",
        "LogicalResourceId": "Contents",
        "ResourceProperties": {"Bucket": bucket, "OnStackDeletion": on_stack_deletion},
    }


@pytest.mark.parametrize(("request_type", "told"), [("Create", "Delete"), ("Update", "Delete"), ("Delete", "Retain")])
def test_nothing_goes_but_with_the_stack_and_only_if_it_was_told_so(app, filled, answers, request_type, told):
    url, heard = answers
    app.handler(event(request_type, told, url), PATIENT)
    assert len(filled.list_object_versions(Bucket=BUCKET)["Versions"]) == 4
    assert [answer["Status"] for answer in heard] == ["SUCCESS"]


def test_the_bucket_goes_with_every_version_and_so_do_the_endpoints(app, filled):
    sagemaker = NoEndpoints()
    app.clear_up(BUCKET, filled, sagemaker, PATIENT.get_remaining_time_in_millis)
    assert filled.list_buckets()["Buckets"] == []
    assert sagemaker.deleted == ["kelpie"]


def test_a_second_try_finds_nothing_left_to_do(app, filled, answers):
    url, heard = answers
    app.clear_up(BUCKET, filled, NoEndpoints(), PATIENT.get_remaining_time_in_millis)
    app.handler(event("Delete", "Delete", url), PATIENT)
    assert heard[0]["Status"] == "SUCCESS"


def test_it_gives_up_while_it_can_still_say_why(app, filled):
    with pytest.raises(app.NotEmptied, match="delete the stack once more"):
        app.clear_up(BUCKET, filled, NoEndpoints(), lambda: 5_000)
    assert filled.list_buckets()["Buckets"] != []


def test_cloudformation_hears_what_went_wrong(app, answers, monkeypatch):
    url, heard = answers
    monkeypatch.setattr(app, "client", lambda _service: None)
    app.handler(event("Delete", "Delete", url), PATIENT)
    assert heard[0]["Status"] == "FAILED"
    assert heard[0]["Reason"].startswith("AttributeError: ")
    assert {"StackId", "RequestId", "LogicalResourceId", "PhysicalResourceId"} <= heard[0].keys()
