"""How long a deployment is waited for."""

import pytest

from localcloud import DeploymentFailed, deployment


class Silent:
    """CloudFormation, with a stack that stays as it is."""

    def describe_stacks(self, **_):
        return {"Stacks": [{"StackName": "kelpie", "StackStatus": "CREATE_IN_PROGRESS"}]}

    def get_paginator(self, _name):
        return self

    def paginate(self, **_):
        event = {"EventId": "1", "LogicalResourceId": "kelpie", "ResourceStatus": "CREATE_IN_PROGRESS"}
        return [{"StackEvents": [event]}]


def test_a_stack_of_which_nothing_is_heard_is_given_up(monkeypatch):
    monkeypatch.setattr(deployment, "LONGEST_SILENCE_SECONDS", 0.2)
    events = []
    with pytest.raises(DeploymentFailed, match=r"kelpie: nothing has happened for 0\.2 seconds .* CREATE_IN_PROGRESS"):
        deployment._Stack(Silent(), "kelpie").wait(events.append)
    assert len(events) == 1
