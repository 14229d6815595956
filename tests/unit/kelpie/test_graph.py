"""The path of an execution through its state machine."""

import datetime
import json
from pathlib import Path

import pytest

from kelpie.execution import StateVisit
from kelpie.graph import path

BEGINNING = datetime.datetime(2026, 11, 22, tzinfo=datetime.UTC)
PRODUCT = json.loads((Path(__file__).parents[3] / "statemachine" / "train_and_deploy.asl.json").read_text())
MACHINE = {
    "StartAt": "Plan",
    "States": {
        "Plan": {"Type": "Task", "Comment": "Plans.", "Next": "IsPlanned", "Catch": [{"Next": "Fail"}]},
        "IsPlanned": {"Type": "Choice", "Choices": [{"Next": "Train"}], "Default": "Fail"},
        "Train": {"Type": "Task", "Next": "Wait"},
        "Wait": {"Type": "Wait", "Next": "Deploy"},
        "Deploy": {"Type": "Task", "End": True},
        "Fail": {"Type": "Fail"},
    },
}


def at(seconds):
    return BEGINNING + datetime.timedelta(seconds=seconds)


def visit(name, entered, left=None, failed=False):
    return StateVisit(name, at(entered), None if left is None else at(left), failed)


def shown(visits, status="RUNNING", machine=MACHINE, now=100):
    return [(node.name, node.standing) for node in path(machine, visits, status, at(now))]


def test_what_was_what_is_and_what_lies_ahead():
    visits = [visit("Plan", 0, 2), visit("IsPlanned", 2, 2), visit("Train", 2)]
    assert shown(visits) == [("Plan", "done"), ("Train", "now"), ("Wait", "ahead"), ("Deploy", "ahead")]


def test_before_the_first_state_all_lies_ahead():
    assert shown([]) == [(name, "ahead") for name in ("Plan", "Train", "Wait", "Deploy")]


def test_visits_of_a_state_add_up_and_the_present_one_lasts_until_now():
    nodes = path(MACHINE, [visit("Wait", 0, 10), visit("Deploy", 10, 11), visit("Wait", 90)], "RUNNING", at(100))
    assert [(node.name, node.visits, node.seconds) for node in nodes[:2]] == [("Wait", 2, 20.0), ("Deploy", 1, 1.0)]


@pytest.mark.parametrize("status", ["FAILED", "ABORTED", "TIMED_OUT"])
def test_a_state_in_which_a_run_ended_has_failed_and_nothing_lies_ahead(status):
    assert shown([visit("Plan", 0, 2), visit("Train", 2)], status) == [("Plan", "done"), ("Train", "failed")]


def test_a_state_whose_failure_was_caught_has_failed():
    visits = [visit("Plan", 0, 2, failed=True), visit("Fail", 2)]
    assert shown(visits, "FAILED") == [("Plan", "failed"), ("Fail", "failed")]


def test_the_products_way_leads_by_its_main_states_to_its_end():
    names = [name for name, _standing in shown([], machine=PRODUCT)]
    main = ["PlanRun", "PrepareDataset", "TuneHyperparameters", "TrainModel", "EvaluateModel", "VerifyEndpoint"]
    assert [name for name in names if name in main] == main
    assert names[-1] == "Announce"
