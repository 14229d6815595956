"""One result and its event, wherever the function is cut short; and what is given up."""

import json

import pytest
from botocore.exceptions import ClientError

JPEG = b"\xff\xd8\xff\xe0 rest"


@pytest.fixture
def killed(endpoint):
    """The function ends before or after it has called this action, once."""

    def killed(handle, *records, before=None, after=None, **options):
        endpoint.killed_before, endpoint.killed_after = before, after
        with pytest.raises(endpoint.Killed):
            handle(*records, **options)

    return killed


def ids(events):
    return [json.loads(event["Detail"])["id"] for event in events]


def test_cut_short_before_its_event_a_message_publishes_it_when_it_comes_again(drop, handle, killed, results, endpoint):
    dropped = drop("inbox/a.jpg", JPEG)
    killed(handle, dropped, before="put_events")
    assert (len(results()), endpoint.events) == (1, [])
    assert handle(dropped, receives=2) == []
    assert (len(results()), len(endpoint.events), len(endpoint.asked)) == (1, 1, 1)


def test_cut_short_after_its_event_a_message_publishes_it_again_with_the_same_id(drop, handle, killed, endpoint):
    dropped = drop("inbox/a.jpg", JPEG)
    killed(handle, dropped, after="put_events")
    assert handle(dropped, receives=2) == []
    first, second = ids(endpoint.events)
    assert first == second


def test_cut_short_and_then_held_back_a_message_still_publishes_its_event(
    drop, handle, handle_sent, killed, context, endpoint
):
    dropped = drop("inbox/a.jpg", JPEG)
    killed(handle, dropped, before="put_events")
    in_time = context.get_remaining_time_in_millis
    context.get_remaining_time_in_millis = lambda: 44_000
    assert handle(dropped, receives=2) == []
    context.get_remaining_time_in_millis = in_time
    assert endpoint.events == []
    handle_sent()
    assert (len(endpoint.events), len(endpoint.asked)) == (1, 1)


def test_cut_short_while_it_is_held_back_a_message_is_answered_once(
    drop, handle, handle_sent, killed, results, endpoint
):
    endpoint.refuses(503, "no capacity")
    dropped = drop("inbox/a.jpg", JPEG)
    killed(handle, dropped, after="send_message")
    endpoint.error = None
    handle_sent()
    assert handle(dropped, receives=2) == []
    assert (len(results()), len(set(ids(endpoint.events)))) == (1, 1)


def test_the_message_that_wrote_the_result_publishes_its_event_and_no_other_does(
    drop, handle, killed, results, endpoint
):
    """A doubled notification, or the sweep's, while the first is on its way to come again."""
    dropped = drop("inbox/a.jpg", JPEG)
    killed(handle, dropped, before="put_events")
    for receives in (1, 2):
        assert handle(dropped, first=1, receives=receives) == []
    assert endpoint.events == []
    assert handle(dropped, receives=2) == []
    assert (len(results()), len(endpoint.events)) == (1, 1)


def test_a_doubled_notification_changes_nothing(drop, handle, handle_sent, result, results, endpoint):
    dropped = drop("inbox/a.jpg", JPEG)
    endpoint.refuses(503, "no capacity")
    assert handle(dropped, first=2) == []
    endpoint.error = None
    handle(dropped)
    first = result(dropped)
    handle_sent()
    endpoint.refuses(400, "now it is refused")
    assert handle(dropped, first=1) == []
    assert result(dropped) == first
    assert (len(results()), len(endpoint.events)) == (1, 1)


def test_a_result_whose_writing_had_no_reply_is_announced(drop, handle, endpoint):
    """botocore writes again by itself then, and is told that there is a result: that of this very message."""
    dropped = drop("inbox/a.jpg", JPEG)
    handle(dropped)
    endpoint.events.clear()
    assert handle(dropped) == []
    assert len(endpoint.events) == 1


def test_one_bad_message_does_not_bring_the_others_again(drop, handle_bodies, results):
    good = json.dumps({"Records": [drop("inbox/a.jpg", JPEG)]})
    assert handle_bodies(good, "not JSON") == ["m1"]
    assert len(results()) == 1


@pytest.mark.parametrize(
    ("code", "status", "held"), [("ModelError", 500, 6), ("ModelError", 404, 0), ("AccessDeniedException", None, 0)]
)
def test_a_failure_of_the_message_is_counted_and_its_reason_becomes_the_result(
    drop, handle, result, results, endpoint, code, status, held
):
    endpoint.error = ClientError({"Error": {"Code": code}, "OriginalStatusCode": status}, "InvokeEndpoint")
    dropped = drop("inbox/a.jpg", JPEG)
    for receives in (1, 2, 3):
        assert handle(dropped, receives=receives, held=held) == ["m0"]
        assert results() == []
    assert handle(dropped, receives=4, held=held) == []
    answer = result(dropped)
    assert (answer["status"], answer["reason"]["code"]) == ("failed", "ClientError")
    assert len(endpoint.asked) == 4
    assert [event["DetailType"] for event in endpoint.events] == ["ImageRejected"]
    assert [json.loads(message["MessageBody"]) for message in endpoint.dead] == [{"Records": [dropped]}]


def test_what_ends_the_function_each_time_is_not_tried_a_fifth_time(drop, handle, result, endpoint):
    dropped = drop("inbox/a.jpg", JPEG)
    assert handle(dropped, receives=5) == []
    assert endpoint.asked == []
    answer = result(dropped)
    assert (answer["status"], answer["reason"]["code"]) == ("failed", "GivenUp")
    assert answer["bytes"] == 0
    assert (len(endpoint.events), len(endpoint.dead)) == (1, 1)


@pytest.mark.parametrize(
    ("cut", "events"), [({"before": "put_events"}, 1), ({"after": "put_events"}, 2), ({"before": "send_message"}, 2)]
)
def test_cut_short_while_it_is_given_up_a_message_is_given_up_when_it_comes_again(
    drop, handle, killed, results, endpoint, cut, events
):
    dropped = drop("inbox/a.jpg", JPEG)
    killed(handle, dropped, receives=5, **cut)
    assert handle(dropped, receives=6) == []
    assert (len(results()), len(endpoint.events), len(endpoint.dead)) == (1, events, 1)
    assert len(set(ids(endpoint.events))) == 1


def test_what_cannot_be_told_while_it_is_given_up_waits(drop, handle, handle_sent, result, endpoint):
    endpoint.failed_entries = 1
    dropped = drop("inbox/a.jpg", JPEG)
    assert handle(dropped, receives=5) == []
    assert (endpoint.dead, len(endpoint.sent)) == ([], 1)
    endpoint.failed_entries = 0
    handle_sent()
    assert result(dropped)["status"] == "failed"
    assert (len(endpoint.events), len(endpoint.dead), endpoint.asked) == (1, 1, [])
