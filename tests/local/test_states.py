"""State machines on the local cloud, and the same on MiniStack as it is: there each of our repairs is still needed."""

import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.waiting import wait_for


def machine(states: dict[str, dict], **fields: Any) -> dict[str, Any]:
    return {"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states, **fields}


def succeed(name: str = "End", output: Any = "{% $states.input %}") -> dict[str, dict]:
    return {name: {"Type": "Pass", "Output": output, "End": True}}


def branch(states: dict[str, dict]) -> dict[str, Any]:
    return {"StartAt": next(iter(states)), "States": states}


TOO_LONG = "{% $pad('x', 262145) %}"

# name: (definition, what DescribeExecution must say)
REPAIRED = {
    "Assign is atomic": (
        machine(
            {
                "First": {"Type": "Pass", "Assign": {"a": 1}, "Next": "Second"},
                "Second": {"Type": "Pass", "Assign": {"a": 2, "b": "{% $a %}"}, "Next": "End"},
                **succeed(output=["{% $a %}", "{% $b %}"]),
            }
        ),
        {"status": "SUCCEEDED", "output": [2, 1]},
    ),
    "Succeed has an Output": (
        machine({"End": {"Type": "Succeed", "Output": {"is": "{% $states.input.given %}"}}}),
        {"status": "SUCCEEDED", "output": {"is": 7}},
    ),
    "Parallel has Arguments, Output and Assign": (
        machine(
            {
                "Both": {
                    "Type": "Parallel",
                    "Arguments": {"n": "{% $states.input.given + 1 %}"},
                    "Branches": [
                        branch({"A": {"Type": "Pass", "Output": "{% $states.input.n %}", "End": True}}),
                        branch({"B": {"Type": "Pass", "Output": "{% $states.input.n * 10 %}", "End": True}}),
                    ],
                    "Assign": {"sum": "{% $sum($states.result) %}"},
                    "Output": {"both": "{% $states.result %}"},
                    "Next": "End",
                },
                **succeed(output={"both": "{% $states.input.both %}", "sum": "{% $sum %}"}),
            }
        ),
        {"status": "SUCCEEDED", "output": {"both": [8, 80], "sum": 88}},
    ),
    "branches have variables of their own": (
        machine(
            {
                "Set": {"Type": "Pass", "Assign": {"v": "outer"}, "Next": "Both"},
                "Both": {
                    "Type": "Parallel",
                    "Branches": [
                        branch(
                            {
                                "Hide": {"Type": "Pass", "Assign": {"v": name}, "Next": "Rest"},
                                "Rest": {"Type": "Wait", "Seconds": 1, "Next": "Tell"},
                                "Tell": {"Type": "Pass", "Output": "{% $v %}", "End": True},
                            }
                        )
                        for name in ("left", "right")
                    ],
                    "Next": "End",
                },
                **succeed(output={"inside": "{% $states.input %}", "outside": "{% $v %}"}),
            }
        ),
        {"status": "SUCCEEDED", "output": {"inside": ["left", "right"], "outside": "outer"}},
    ),
    "the machine's TimeoutSeconds": (
        machine({"Rest": {"Type": "Wait", "Seconds": 2, "Next": "End"}, **succeed()}, TimeoutSeconds=1),
        {"status": "TIMED_OUT"},
    ),
    "an expression in a task's TimeoutSeconds": (
        machine(
            {
                "List": {
                    "Type": "Task",
                    "Resource": "arn:aws:states:::aws-sdk:dynamodb:listTables",
                    "Arguments": {},
                    "TimeoutSeconds": "{% $states.input.given %}",
                    "Output": "listed",
                    "End": True,
                }
            }
        ),
        {"status": "SUCCEEDED", "output": "listed"},
    ),
    "an output of more than 256 KiB": (
        machine({"Grow": {"Type": "Pass", "Output": TOO_LONG, "Next": "End"}, **succeed(output=0)}),
        {"status": "FAILED", "error": "States.DataLimitExceeded"},
    ),
    "variables of more than 256 KiB": (
        machine({"Keep": {"Type": "Pass", "Assign": {"v": TOO_LONG}, "Next": "End"}, **succeed(output=0)}),
        {"status": "FAILED", "error": "States.DataLimitExceeded"},
    ),
    "States.ALL does not catch it": (
        machine(
            {
                "Try": {
                    "Type": "Parallel",
                    "Branches": [branch({"Grow": {"Type": "Pass", "Output": TOO_LONG, "End": True}})],
                    "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "End"}],
                    "Next": "End",
                },
                **succeed(output=0),
            }
        ),
        {"status": "FAILED", "error": "States.DataLimitExceeded"},
    ),
    "a distributed Map is refused": (
        machine(
            {
                "Each": {
                    "Type": "Map",
                    "Items": [1, 2],
                    "ItemProcessor": {
                        "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
                        **branch(succeed()),
                    },
                    "End": True,
                }
            }
        ),
        {"status": "FAILED", "error": "States.Runtime"},
    ),
}


def outcome(description: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    found = {key: description.get(key) for key in expected}
    if found.get("output"):
        found["output"] = json.loads(found["output"])
    return found


@pytest.mark.parametrize(("definition", "expected"), REPAIRED.values(), ids=REPAIRED.keys())
def test_repaired(machines, definition, expected):
    assert outcome(machines.run(definition, {"given": 7}), expected) == expected


@pytest.mark.parametrize(("definition", "expected"), REPAIRED.values(), ids=REPAIRED.keys())
def test_upstream_still_needs_the_repair(upstream_machines, definition, expected):
    assert outcome(upstream_machines.run(definition, {"given": 7}), expected) != expected


WAITS_SECONDS = 4


def fails_after_a_while() -> dict[str, Any]:
    states = {"Rest": {"Type": "Wait", "Seconds": WAITS_SECONDS, "Next": "No"}, "No": {"Type": "Fail", "Error": "Late"}}
    return machine({"Try": {"Type": "Parallel", "Branches": [branch(states)], "End": True}})


def stop_while_it_waits(machines) -> str:
    states = machines.session.client("stepfunctions")
    execution = machines.start(fails_after_a_while())
    wait_for(lambda: "Try" in str(states.get_execution_history(executionArn=execution)["events"]))
    states.stop_execution(executionArn=execution, error="Enough", cause="of this")
    return execution


def test_a_stopped_execution_stays_aborted(machines):
    execution = stop_while_it_waits(machines)
    time.sleep(WAITS_SECONDS + 1)  # until it would have failed
    states = machines.session.client("stepfunctions")
    description = states.describe_execution(executionArn=execution)
    assert (description["status"], description["error"], description["cause"]) == ("ABORTED", "Enough", "of this")
    assert states.get_execution_history(executionArn=execution)["events"][-1]["type"] == "ExecutionAborted"


def test_upstream_turns_a_stopped_execution_into_a_failed_one(upstream_machines):
    execution = stop_while_it_waits(upstream_machines)
    states = upstream_machines.session.client("stepfunctions")
    wait_for(lambda: states.describe_execution(executionArn=execution)["status"] == "FAILED")


def test_an_input_of_more_than_256_kib_is_refused(machines):
    with pytest.raises(ClientError) as refused:
        machines.start(machine(succeed()), "x" * 262_144)
    assert refused.value.response["Error"]["Code"] == "InvalidExecutionInput"


def test_upstream_takes_an_input_of_any_size(upstream_machines):
    assert upstream_machines.start(machine(succeed()), "x" * 262_144)


def test_an_input_that_is_not_json_is_refused(machines):
    execution = machines.start(machine(succeed()))
    with pytest.raises(ClientError) as refused:
        start_again(machines, execution, "not JSON")
    assert refused.value.response["Error"]["Code"] == "InvalidExecutionInput"


def test_upstream_takes_an_input_that_is_not_json(upstream_machines):
    execution = upstream_machines.start(machine(succeed()))
    assert start_again(upstream_machines, execution, "not JSON")


def start_again(machines, execution, text):
    states = machines.session.client("stepfunctions")
    arn = states.describe_execution(executionArn=execution)["stateMachineArn"]
    return states.start_execution(stateMachineArn=arn, input=text)


def test_a_state_reads_an_object_if_its_role_may(session, machines):
    s3, bucket = session.client("s3"), f"read-{time.monotonic_ns()}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="folder/it.json", Body=b'{"is": 7}')

    def read(key, *actions, bucket=bucket):
        resource = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
        task = {
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:s3:getObject",
            "Arguments": {"Bucket": bucket, "Key": key},
            "Output": "{% $parse($states.result.Body).is %}",
            "End": True,
        }
        statements = [{"Effect": "Allow", "Action": list(actions), "Resource": resource}]
        return machines.run(machine({"Read": task}), statements=statements)

    assert read("folder/it.json", "s3:GetObject")["output"] == "7"
    assert read("folder/it.json", "s3:ListBucket")["error"] == "S3.S3Exception"
    assert read("folder/other.json", "s3:GetObject", "s3:ListBucket")["error"] == "S3.NoSuchKeyException"
    assert read("folder/other.json", "s3:GetObject")["error"] == "S3.S3Exception"
    assert read("it.json", "s3:GetObject", bucket=f"no-{bucket}")["error"] == "S3.NoSuchBucketException"
