"""What waits while nothing can be asked or told."""

import json

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
    SSLError,
)

JPEG = b"\xff\xd8\xff\xe0 rest"

NO_CONNECTION = [
    ConnectTimeoutError(endpoint_url="https://away"),
    EndpointConnectionError(endpoint_url="https://away"),
    SSLError(endpoint_url="https://away", error="certificate"),
    ReadTimeoutError(endpoint_url="https://away"),
]


def model_error(status, message):
    response = {"Error": {"Code": "ModelError"}, "OriginalStatusCode": status, "OriginalMessage": message}
    return ClientError(response, "InvokeEndpoint")


TROUBLE = [
    model_error(429, "busy"),
    model_error(503, "no capacity"),
    model_error(0, "the process exited"),
    model_error(500, "boom"),
    ClientError({"Error": {"Code": "ValidationError", "Message": "Endpoint kelpie not found"}}, "InvokeEndpoint"),
    ClientError({"Error": {"Code": "ThrottlingException"}}, "InvokeEndpoint"),
    ClientError({"Error": {"Code": "ServiceUnavailable"}}, "InvokeEndpoint"),
    *NO_CONNECTION,
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


def test_what_was_held_back_is_answered_once_the_endpoint_is_there(drop, handle, handle_sent, result, endpoint):
    endpoint.error = TROUBLE[0]
    assert handle(dropped := drop("inbox/a.jpg", JPEG), first=7) == []
    handle_sent()
    endpoint.error = None
    handle_sent()
    assert result(dropped)["message_id"] == "m7"  # however often it was sent again
    assert endpoint.sent == []
    assert len(endpoint.events) == 1


def test_a_batch_that_runs_out_of_time_waits_untried(drop, handle, context, results, endpoint):
    context.get_remaining_time_in_millis = lambda: 44_000
    assert handle(drop("inbox/a.jpg", JPEG)) == []
    assert (endpoint.asked, results()) == ([], [])
    assert len(endpoint.sent) == 1


def test_a_queue_that_takes_nothing_brings_the_message_itself_again(drop, handle, endpoint, monkeypatch):
    endpoint.error = TROUBLE[0]

    def refuse(**_):
        raise ClientError({"Error": {"Code": "ServiceUnavailable"}}, "SendMessage")

    monkeypatch.setattr(endpoint, "send_message", refuse)
    assert handle(drop("inbox/a.jpg", JPEG), drop("inbox/b.jpg", JPEG)) == ["m0", "m1"]


BUS_TROUBLE = [
    ClientError({"Error": {"Code": "ThrottlingException"}}, "PutEvents"),
    *NO_CONNECTION,
]


@pytest.mark.parametrize("error", BUS_TROUBLE)
def test_while_no_event_can_be_published_the_message_waits_and_the_result_is_there(
    drop, handle, handle_sent, results, endpoint, monkeypatch, error
):
    def refuse(**_):
        raise error

    with monkeypatch.context() as away:
        away.setattr(endpoint, "put_events", refuse)
        assert handle(drop("inbox/a.jpg", JPEG), receives=4) == []
        handle_sent()
    assert (len(results()), endpoint.events) == (1, [])
    handle_sent()
    assert (len(endpoint.events), len(endpoint.asked), endpoint.sent) == (1, 1, [])


@pytest.mark.parametrize("error", NO_CONNECTION)
def test_while_the_bucket_is_out_of_reach_messages_wait(drop, handle, handle_sent, result, s3, monkeypatch, error):
    def refuse(**_):
        raise error

    dropped = drop("inbox/a.jpg", JPEG)
    with monkeypatch.context() as away:
        away.setattr(s3, "get_object", refuse)
        for receives in (1, 4, 5):
            assert handle(dropped, receives=receives) == []
    handle_sent()
    assert result(dropped)["status"] == "classified"


def test_an_event_that_is_not_taken_is_published_later(drop, handle, handle_sent, endpoint):
    endpoint.failed_entries = 1
    assert handle(drop("inbox/a.jpg", JPEG)) == []
    endpoint.failed_entries = 0
    handle_sent()
    assert (len(endpoint.events), len(endpoint.asked)) == (1, 1)


def test_neither_the_endpoint_nor_the_bus_is_waited_for_longer_than_there_is_time(app, monkeypatch):
    configs = {}
    monkeypatch.setattr(app, "client", lambda service, config=None: configs.update({service: config}))
    app.open_inbox()
    waits = [configs["sagemaker-runtime"], configs["events"]]
    seconds = sum(one.retries["total_max_attempts"] * (one.connect_timeout + one.read_timeout) for one in waits)
    assert seconds < app.INVOKE_SECONDS + app.RESERVE_SECONDS
