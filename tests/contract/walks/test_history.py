"""An execution has room for 25,000 events: enough for every loop of it to last as long as it may, all in one run.

https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html
"""

import json

import pytest

from tests.contract.conftest import ROOT, SUBSTITUTIONS
from tests.contract.walks.conftest import CREATED, JOBS_BY_STATE, TAKEN

MOST_EVENTS = 25_000
ENTERED_AND_EXITED, SCHEDULED_STARTED_DONE = 2, 3
ADOPTED = {
    "DescribeAdoptedJob": {
        "TrainingJobName": "j",
        "TrainingJobStatus": "InProgress",
        "SecondaryStatus": "Training",
        "CreationTime": CREATED,
    },
    "DescribeAdoptedTuning": {"HyperParameterTuningJobStatus": "InProgress", "CreationTime": CREATED},
}


@pytest.fixture(scope="module")
def longest(definition, template):
    """The state machine with the longest deadline that the template allows."""
    asked, most = (
        SUBSTITUTIONS["EndpointDeadlineSeconds"],
        template["Parameters"]["EndpointDeadlineSeconds"]["MaxValue"],
    )
    return json.loads(json.dumps(definition).replace(f"+ {asked} * 1000", f"+ {most} * 1000"))


@pytest.fixture
def walk(longest, interpreter):
    return lambda results: interpreter.walk(longest, {"dataset": "s3://bucket/dogs"}, results)


@pytest.fixture
def events(longest):
    def events(path):
        tasks = [name for name in path if longest["States"][name]["Type"] == "Task"]
        return ENTERED_AND_EXITED * len(path) + SCHEDULED_STARTED_DONE * len(tasks)

    return events


@pytest.fixture
def loop(walk, events):
    """The events of what a walk goes through more than once."""
    return lambda results: events(path := walk(results).path) - events(list(dict.fromkeys(path)))


@pytest.fixture
def limits():
    schema = json.loads((ROOT / "contracts" / "execution_input.schema.json").read_text())["properties"]
    return {
        name: schema[part]["properties"][name]["maximum"]
        for part, name in (("serving", "lock_wait_seconds"), ("debugger", "max_retrains"))
    }


def test_a_run_in_which_everything_takes_as_long_as_it_may_has_room_in_its_history(
    longest, walk, events, loop, results, updating, limits, task_error
):
    results["PlanRun"]["Payload"]["plan"]["input"]["serving"]["lock_wait_seconds"] = limits["lock_wait_seconds"]
    there = task_error("SageMaker.ResourceInUseException")
    jobs = {state: loop({**results, **ADOPTED, state: there}) for state in JOBS_BY_STATE}
    trainings = 1 + limits["max_retrains"]
    again = dict.fromkeys(JOBS_BY_STATE, 1) | {"TrainModel": trainings}
    retries = {state: sum(one["MaxAttempts"] for one in longest["States"][state]["Retry"]) for state in JOBS_BY_STATE}
    updated = {"EndpointStatus": "Updating", "EndpointConfigName": "former"}
    maintained = {"EndpointStatus": "SystemUpdating", "EndpointConfigName": "former"}
    worst = {
        "a run": events(walk(updating).path),
        "jobs": sum(jobs[state] * again[state] for state in jobs),
        "retries": SCHEDULED_STARTED_DONE * sum(retries[state] * again[state] for state in jobs),
        "managed rules": trainings
        * asked_of_managed_rules(walk, results)
        * events(["WaitForManagedRules", "ReviewDebugger", "IsTrainingSound"]),
        "lock": loop({**results, "LockEndpoint": {"Payload": TAKEN}}),
        # The wait for an endpoint that is not free is part of the update's time.
        "update": max(
            loop({**updating, "ReadEndpoint": maintained}),
            loop({**updating, "DescribeEndpoint": updated, "CheckRollBack": updated}),
        ),
    }
    assert sum(worst.values()) < MOST_EVENTS, worst


def asked_of_managed_rules(walk, results):
    """How often ReviewDebugger is asked until it is told that it is late, and decides."""
    waiting, accepted = (
        {"Payload": {"verdict": verdict, "reason": "r", "attempts": []}} for verdict in ("wait", "accept")
    )
    run = walk({**results, "ReviewDebugger": [*[waiting] * 200, accepted]})
    return next(count for count, asked in enumerate(run.requests["ReviewDebugger"], 1) if asked["Payload"]["late"])
