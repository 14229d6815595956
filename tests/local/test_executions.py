"""Executions that end in a state on demand, and that are redriven from there."""

import json

import pytest
from botocore.exceptions import ClientError

COUNTS = "{% $states.context.Execution.RedriveCount %}"


def machine(**middle):
    """Counts in a variable, tells how often it was redriven, and ends with both."""
    return {
        "QueryLanguage": "JSONata",
        "StartAt": "Count",
        "States": {
            "Count": {"Type": "Pass", "Assign": {"counted": "{% $states.input.from + 1 %}"}, "Next": "Middle"},
            "Middle": {"Type": "Pass", "Output": {"redrives": COUNTS}, "Next": "Tell", **middle},
            "Tell": {
                "Type": "Pass",
                "Output": {"seen": "{% $states.input %}", "counted": "{% $counted %}"},
                "End": True,
            },
        },
    }


@pytest.fixture
def states(session):
    return session.client("stepfunctions")


@pytest.mark.parametrize("status", ["ABORTED", "FAILED", "TIMED_OUT"])
def test_an_execution_ends_where_a_fault_says_and_goes_on_from_there(cloud, states, machines, status):
    cloud.inject("ExecutionEnds", State="Middle", Status=status)
    execution = machines.start(machine(), {"from": 6})
    assert machines.end_of(execution)["status"] == status
    assert cloud.faults() == []
    described = states.describe_execution(executionArn=execution)
    assert (described["redriveStatus"], described["redriveCount"]) == ("REDRIVABLE", 0)
    states.redrive_execution(executionArn=execution)
    ended = machines.end_of(execution)
    assert (ended["status"], ended["redriveCount"], ended["redriveStatus"]) == ("SUCCEEDED", 1, "NOT_REDRIVABLE")
    assert json.loads(ended["output"]) == {"seen": {"redrives": 1}, "counted": 7}
    events = states.get_execution_history(executionArn=execution)["events"]
    entered = [one["stateEnteredEventDetails"]["name"] for one in events if "stateEnteredEventDetails" in one]
    assert entered == ["Count", "Middle", "Middle", "Tell"]
    assert "ExecutionRedriven" in [one["type"] for one in events]


def test_a_fail_state_fails_again(states, machines):
    execution = machines.start({"StartAt": "No", "States": {"No": {"Type": "Fail", "Error": "NotYet"}}})
    machines.end_of(execution)
    states.redrive_execution(executionArn=execution)
    ended = machines.end_of(execution)
    assert (ended["status"], ended["error"], ended["redriveCount"]) == ("FAILED", "NotYet", 1)


def test_an_execution_that_succeeded_or_runs_is_not_redriven(states, machines):
    execution = machines.start(machine(), {"from": 1})
    machines.end_of(execution)
    with pytest.raises(ClientError, match="ExecutionNotRedrivable"):
        states.redrive_execution(executionArn=execution)


def test_upstream_has_no_redrive(upstream_machines):
    execution = upstream_machines.start({"StartAt": "No", "States": {"No": {"Type": "Fail"}}})
    upstream_machines.end_of(execution)
    with pytest.raises(ClientError, match="InvalidAction"):
        upstream_machines.session.client("stepfunctions").redrive_execution(executionArn=execution)
