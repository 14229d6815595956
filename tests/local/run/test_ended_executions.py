"""An execution that is stopped, times out or dies in a state of the deploy: whichever it is, the champion answers.

The states come from the definition, so that a new one is covered by itself. Nothing is paid for: the state machine is
the stack's own, entered at LockEndpoint with the plan, the model and the evaluation of the champion's run.
"""

import dataclasses
import hashlib
import json
import os
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

ENDINGS = ("ABORTED", "TIMED_OUT", "FAILED")
DEFINITION = json.loads(
    re.sub(r"\$\{\w+\}", "1", (Path(__file__).parents[3] / "statemachine" / "train_and_deploy.asl.json").read_text())
)["States"]
ORDER = list(DEFINITION)
AFTER_LOCK = "JudgeEvaluation"
"""Where a run goes on that has the lock: its jobs are done."""


def part(first: str, last: str) -> list[str]:
    """The states from one to another that do something, and are not passed through in no time."""
    states = ORDER[ORDER.index(first) : ORDER.index(last) + 1]
    return [name for name in states if DEFINITION[name]["Type"] not in ("Choice", "Fail")]


ON_THE_WAY = part(AFTER_LOCK, "UnlockEndpoint")
ADOPTING = part("ReadModel", "ReadDeploy")
ROLLING_BACK = ["ReadChampion", *part("RollBackEndpoint", "DeleteEndpoint")]
CREATING = {"CreateEndpoint", "DeleteEndpoint"}
MOVED = ON_THE_WAY[ON_THE_WAY.index("VerifyEndpoint") :]
"""When these are over, the run's own model is the champion."""
OTHER_WEIGHTS = {"weights_sha256": "f" * 64}
"""Evaluated were others than those that the endpoint will serve."""
LOST = {"ReadModel": "CreateModel", "ReadEndpointConfig": "CreateEndpointConfig", "ReadDeploy": "UpdateEndpoint"}


@pytest.fixture(scope="module")
def entered_late(champion):
    """The champion's stack, whose state machine begins with the lock, given a plan; and the champion's documents."""
    states, arn = champion.client("stepfunctions"), champion.outputs["StateMachineArn"]
    whole = states.describe_state_machine(stateMachineArn=arn)["definition"]
    definition = json.loads(whole)
    given = {
        name: f"{{% $states.input.{name} %}}" for name in ("plan", "plan_uri", "model_data", "training", "attempts")
    }
    begin = {
        "Type": "Pass",
        "Assign": given | {"polls": 0, "deadline": "{% $millis() + 3600000 %}"},
        "Next": "LockEndpoint",
    }
    jobs_done = {"Type": "Pass", "Next": AFTER_LOCK}
    definition["States"] |= {"Begin": begin, "EvaluateModel": jobs_done}
    states.update_state_machine(stateMachineArn=arn, definition=json.dumps(definition | {"StartAt": "Begin"}))
    yield champion
    states.update_state_machine(stateMachineArn=arn, definition=whole)


def enter(stack, name: str, **evaluated: Any) -> str:
    """Start an execution whose jobs are done; return its ARN. evaluated: what EvaluateModel found otherwise."""
    pointer = stack.read(f"endpoints/{stack.name}/champion.json")
    former = f"runs/{pointer['run_id']}"
    arn = f"{stack.outputs['StateMachineArn'].replace(':stateMachine:', ':execution:')}:{name}"
    run_id = hashlib.sha256(arn.encode()).hexdigest()[:12]
    plan = stack.read(f"{former}/plan.json")
    text = json.dumps({**plan, "execution_arn": arn}).replace(pointer["run_id"], run_id)
    plan = json.loads(text.replace(f"endpoint/{stack.name}/variant", f"endpoint/{stack.endpoint_name}/variant"))
    plan["locations"]["evaluation"] = evaluation_of(stack, pointer["evaluation"], run_id=run_id, **evaluated)
    plan["names"]["endpoint"] = plan["requests"]["endpoint"]["EndpointName"] = stack.endpoint_name
    plan |= {"created_at": now(), "previous_endpoint_config": live_config(stack)}
    plan["scaling"] = scaled(plan["scaling"]["variant"])
    bucket, key = stack.outputs["Bucket"], f"runs/{run_id}/plan.json"
    stack.client("s3").put_object(Bucket=bucket, Key=key, Body=json.dumps(plan).encode())
    given = {"plan_uri": f"s3://{bucket}/{key}", "plan": {**plan, "dataset": {"uri": plan["dataset"]["uri"]}}}
    given |= {"model_data": pointer["model_data"], "training": {}, "attempts": []}
    started = stack.client("stepfunctions").start_execution(
        stateMachineArn=stack.outputs["StateMachineArn"], name=name, input=json.dumps(given)
    )
    assert started["executionArn"] == arn
    return arn


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def live_config(stack) -> str | None:
    found = stack.client("sagemaker").list_endpoints(NameContains=stack.endpoint_name)["Endpoints"]
    there = stack.endpoint_name in [endpoint["EndpointName"] for endpoint in found]
    return stack.endpoint()["EndpointConfigName"] if there else None


def evaluation_of(stack, former: str, **members: Any) -> str:
    """Put an evaluation beside a former one, whose samples it shares; return its URI."""
    bucket, _, key = former.removeprefix("s3://").partition("/")
    document, other = {**stack.read(key), **members}, key.replace("evaluation.json", f"{members['run_id']}.json")
    stack.client("s3").put_object(Bucket=bucket, Key=other, Body=json.dumps(document).encode())
    return f"s3://{bucket}/{other}"


def scaled(variant: dict[str, str]) -> dict[str, Any]:
    """A plan's scaling, between one instance and two."""
    metric = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
    tracking = {"TargetValue": 1000, "PredefinedMetricSpecification": metric}
    policy = {
        "PolicyName": "load",
        "PolicyType": "TargetTrackingScaling",
        "TargetTrackingScalingPolicyConfiguration": tracking,
    }
    capacity = {"MinCapacity": 1, "MaxCapacity": 2}
    return {"variant": variant, "retained": {}, "target": variant | capacity, "policy": variant | policy}


def grow(stack) -> None:
    """Have the endpoint change its size when the run comes to it, and until the faults are cleared."""
    stack.cloud.inject("StartDelay", Name=stack.endpoint_name, Seconds=3600)
    change = {"VariantName": "AllTraffic", "DesiredInstanceCount": 2}
    stack.client("sagemaker").update_endpoint_weights_and_capacities(
        EndpointName=stack.endpoint_name, DesiredWeightsAndCapacities=[change]
    )


@pytest.fixture(scope="module")
def endings(entered_late):
    """An endpoint with a champion for each way to end, so that they can end at once."""
    stacks = {
        status: dataclasses.replace(entered_late, endpoint_name=f"{entered_late.name}-{status[0].lower()}")
        for status in ENDINGS
    }
    created = {status: enter(stack, f"first-{os.urandom(4).hex()}") for status, stack in stacks.items()}
    for status, stack in stacks.items():
        ended = stack.end_of(created[status])
        assert ended["status"] == "SUCCEEDED", f"{ended.get('error')}: {ended.get('cause')}"
    return stacks


def serving(stack):
    """The weights that answer, of the champion's configuration, which must be the live one."""
    live = stack.endpoint()
    assert (live["EndpointStatus"], live["EndpointConfigName"]) == ("InService", stack.pointer()["endpoint_config"])
    return stack.answer()["model"]["weights_sha256"]


@pytest.mark.parametrize(
    "state", ["LockEndpoint", *(s for s in ON_THE_WAY + ROLLING_BACK + ADOPTING if s not in CREATING)]
)
def test_whatever_ends_in_a_state_of_an_update_leaves_the_champion(endings, faulty, state):
    executions, former = {}, {}
    for status, stack in endings.items():
        former[status] = stack.pointer()
        name = f"{status.lower()}-{os.urandom(4).hex()}"
        faulty.cloud.inject("ExecutionEnds", Name=name, State=state, Status=status)
        if state in LOST:
            faulty.cloud.inject("LostReply", Action=LOST[state])
        if state == "ReadDeploy":  # an update that is over would be made again
            faulty.cloud.inject("StartDelay", Name=stack.endpoint_name, Seconds=3600)
        if state == "WaitForFreeEndpoint":
            grow(stack)
        executions[status] = enter(stack, name, **(OTHER_WEIGHTS if state in ROLLING_BACK else {}))
    for status, stack in endings.items():
        assert stack.end_of(executions[status])["status"] == status
        assert stack.states(executions[status])[-1] == state
    faulty.wait_until_faulted()
    faulty.cloud.clear_faults()
    for status, stack in endings.items():
        stack.wait_until_recovered(executions[status])
        own = stack.pointer()["execution_arn"] == executions[status]
        assert own is (state in MOVED)
        assert own or stack.pointer() == former[status]
        assert serving(stack) == stack.pointer()["weights_sha256"]
        assert stack.lock()["owner"] is None
        assert stack.capacity() == (1, 2)
        assert stack.paid_jobs(executions[status]) == []


def test_a_champion_whose_verification_brings_no_reply_is_not_taken_back(entered_late, faulty):
    """Neither an update nor a first deploy, which would leave the pointer without an endpoint."""
    stack = dataclasses.replace(entered_late, endpoint_name=f"{entered_late.name}-mute")
    for _ in ("a first deploy", "an update"):
        faulty.cloud.inject("LostReply", Action="Invoke", Name=f"{stack.name}-verify-endpoint", Times=4)
        execution = enter(stack, f"mute-{os.urandom(4).hex()}")
        ended = stack.end_of(execution)
        assert ended["status"] == "SUCCEEDED", f"{ended.get('error')}: {ended.get('cause')}"
        assert "ReadChampion" in stack.states(execution)
        assert stack.pointer()["execution_arn"] == execution
        assert serving(stack) == stack.pointer()["weights_sha256"]
        assert stack.lock()["owner"] is None
        assert stack.capacity() == (1, 2)
    assert faulty.cloud.faults() == []


@pytest.mark.parametrize("state", sorted(CREATING))
def test_whatever_ends_in_a_state_of_a_first_deploy_leaves_no_endpoint(entered_late, faulty, state):
    executions = {}
    for status in ENDINGS:
        stack = dataclasses.replace(
            entered_late, endpoint_name=f"{entered_late.name}-{status[0].lower()}-{state.lower()}"
        )
        name = f"{status.lower()}-{os.urandom(4).hex()}"
        faulty.cloud.inject("ExecutionEnds", Name=name, State=state, Status=status)
        executions[status] = stack, enter(stack, name, **OTHER_WEIGHTS)
    for status, (stack, execution) in executions.items():
        assert stack.end_of(execution)["status"] == status
        stack.wait_until_recovered(execution)
        assert stack.client("sagemaker").list_endpoints(NameContains=stack.endpoint_name)["Endpoints"] == []
        assert stack.lock()["owner"] is None


def test_an_endpoint_that_was_deleted_before_the_run_does_not_come_back_with_its_former_champion(entered_late, faulty):
    stack = dataclasses.replace(entered_late, endpoint_name=f"{entered_late.name}-saved")
    assert stack.end_of(enter(stack, f"served-{os.urandom(4).hex()}"))["status"] == "SUCCEEDED"
    former = stack.pointer()
    stack.client("sagemaker").delete_endpoint(EndpointName=stack.endpoint_name)
    stack.wait_until(lambda: live_config(stack) is None, stack.lock)
    time.sleep(1)  # the pointer's times are whole seconds
    name = f"stopped-{os.urandom(4).hex()}"
    faulty.cloud.inject("ExecutionEnds", Name=name, State="CreateEndpoint")
    execution = enter(stack, name)
    assert stack.end_of(execution)["status"] == "ABORTED"
    stack.wait_until_recovered(execution)
    assert live_config(stack) is None
    assert stack.pointer() == former
