"""What an execution's history says of its states."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kelpie.execution import EPOCH, StateVisit, run_id, seconds_by_state, state_visits
from kelpie.summary import failure, reason

NOON = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)


def at(seconds):
    return NOON + datetime.timedelta(seconds=seconds)


def entered(name, seconds, kind="Task"):
    return {"type": f"{kind}StateEntered", "timestamp": at(seconds), "stateEnteredEventDetails": {"name": name}}


def left(name, seconds, kind="Task"):
    return {"type": f"{kind}StateExited", "timestamp": at(seconds), "stateExitedEventDetails": {"name": name}}


def test_states_are_paired_in_the_order_of_their_entry():
    events = [
        {"type": "ExecutionStarted", "timestamp": at(0)},
        entered("Plan", 1),
        {"type": "TaskScheduled", "timestamp": at(1)},
        left("Plan", 3),
        entered("Tune", 3),
    ]
    assert state_visits(events) == [StateVisit("Plan", at(1), at(3)), StateVisit("Tune", at(3), None)]


def test_visits_of_a_polling_state_add_up_and_a_last_state_lasts_until_the_end():
    visits = state_visits(
        [
            entered("Look", 0),
            left("Look", 1),
            entered("Wait", 1, "Wait"),
            left("Wait", 6, "Wait"),
            entered("Look", 6),
            left("Look", 8),
            entered("Fail", 8, "Fail"),
        ]
    )
    assert seconds_by_state(visits, at(8.5)) == [
        {"name": "Look", "seconds": 3.0},
        {"name": "Wait", "seconds": 5.0},
        {"name": "Fail", "seconds": 0.5},
    ]


@given(st.lists(st.sampled_from("ABC"), max_size=20))
def test_no_second_of_a_sequence_of_states_is_lost(names):
    events = [event for i, name in enumerate(names) for event in (entered(name, i), left(name, i + 1))]
    total = sum(state["seconds"] for state in seconds_by_state(state_visits(events), at(len(names))))
    assert total == len(names)


def test_the_run_id_is_derived_from_the_arn():
    assert run_id("arn:aws:states:us-east-1:000000000000:execution:kelpie-train-and-deploy:one") == "662821c59596"


def test_an_epochs_line_is_read():
    line = "epoch 3/8 train_loss=0.4123 valid_accuracy=0.8600 learning_rate=9.8e-04 phase_seconds_left=41"
    assert EPOCH.match(line).group("epoch", "epochs") == ("3", "8")
    assert not EPOCH.match("final valid_accuracy=0.9 (epoch 3)")


def test_a_causes_message_is_shown_without_what_lambda_wraps_it_in():
    wrapped = '{"errorMessage": "the bucket\\n is gone", "errorType": "DatasetError", "stackTrace": ["app.py"]}'
    described = {"execution_name": "one", "status": "FAILED", "error": "DatasetError", "cause": wrapped}
    assert failure(described) == "the run one ended FAILED: DatasetError: the bucket is gone"


@pytest.mark.parametrize("cause", ["the job ended Failed: {curly}", "[1]", '{"FailureReason": "x"}', "17"])
def test_any_other_cause_is_shown_as_it_is(cause):
    assert reason(cause) == cause


def test_a_missing_cause_is_said_to_be_missing():
    assert reason(None) == "no cause was given"
