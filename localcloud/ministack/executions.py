"""How executions of MiniStack's Step Functions run, end, and run again from where they ended.

A redrive starts again at the state that did not succeed, with the input and the variables that it had:
https://docs.aws.amazon.com/step-functions/latest/dg/redrive-executions.html. Other than on AWS, it takes the state
machine's definition of now, and a Parallel or Map state starts again as a whole.
"""

import contextlib
import contextvars
import copy
import functools
import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

from ministack.core.responses import error_response_json, json_response, now_iso
from ministack.services import stepfunctions

from localcloud.ministack.repairs import Repair
from localcloud.sagemaker.faults import Faults

logger = logging.getLogger(__name__)

REDRIVABLE = ("ABORTED", "FAILED", "TIMED_OUT")

_faults = Faults()


class ExecutionEnded(Exception):
    """The execution was stopped or has timed out: no Retry and no Catch runs, and the thread ends."""


def take_faults_of(faults: Faults) -> None:
    """Let the faults of this cloud end executions, and lose replies of functions."""
    global _faults
    _faults = faults


def loses_reply_of(function: str) -> bool:
    return _faults.loses_reply_of(function)


def is_running(execution: dict[str, Any], redrives: int) -> bool:
    """Whether an execution still runs as it did when it had been redriven so often."""
    return execution["status"] == "RUNNING" and execution.get("redriveCount", 0) == redrives


def abandon_executions() -> None:
    """End what runs when the cloud stops, as at a start after a crash: no Catch runs and no event is sent."""
    for execution in stepfunctions._executions.all_values():
        if execution["status"] == "RUNNING":
            cause = "the local cloud was stopped while the execution was running"
            execution.update(status="FAILED", error="States.ServiceRestart", cause=cause, stopDate=now_iso())
            details = {"error": execution["error"], "cause": cause}
            stepfunctions._add_event(execution, "ExecutionFailed", {"executionFailedEventDetails": details})


def _run_execution(_original: Callable[..., Any]) -> Callable[..., Any]:
    """Ends the execution as TIMED_OUT when the machine's TimeoutSeconds have passed, and remembers where it is."""

    def run_execution(execution_arn: str) -> None:
        execution = stepfunctions._executions[execution_arn]
        machine = stepfunctions._state_machines.get(execution["stateMachineArn"])
        if machine is None:
            stepfunctions._fail_execution(execution, "StateMachineDeleted", "State machine no longer exists")
            return
        definition = json.loads(machine["definition"])
        given = json.loads(execution["input"])
        begin = {"name": definition["StartAt"], "input": given, "variables": {}}
        redrives = execution.get("redriveCount", 0)
        context = {
            "QueryLanguage": definition.get("QueryLanguage", "JSONPath"),
            "Execution": {
                "Id": execution_arn,
                "Input": given,
                "Name": execution["name"],
                "StartTime": execution["startDate"],
                "RedriveCount": redrives,
                **({"RedriveTime": execution["redriveDate"]} if redrives else {}),
            },
            "StateMachine": {"Id": execution["stateMachineArn"], "Name": machine["name"]},
        }
        with _time_limit(execution, definition.get("TimeoutSeconds")):
            _run(execution, definition["States"], context, execution.get("resume") or begin)

    return run_execution


@contextlib.contextmanager
def _time_limit(execution: dict[str, Any], seconds: float | None) -> Iterator[None]:
    if seconds is None:
        yield
        return
    context, redrives = contextvars.copy_context(), execution.get("redriveCount", 0)
    timer = threading.Timer(seconds, lambda: context.run(_time_out, execution, redrives))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _time_out(execution: dict[str, Any], redrives: int) -> None:
    if not is_running(execution, redrives):
        return
    execution["status"] = "TIMED_OUT"
    execution["stopDate"] = now_iso()
    stepfunctions._add_event(execution, "ExecutionTimedOut", {"executionTimedOutEventDetails": {}})
    stepfunctions._emit_execution_status_event(execution)


def _run(execution: dict[str, Any], states: dict[str, Any], context: dict[str, Any], begin: dict[str, Any]) -> None:
    redrives = execution.get("redriveCount", 0)
    context["variables"] = copy.deepcopy(begin["variables"])
    name, value = begin["name"], begin["input"]
    try:
        while name and is_running(execution, redrives):
            execution["resume"] = {"name": name, "input": value, "variables": copy.deepcopy(context["variables"])}
            value, following = _step(execution, states, name, value, context)
            if is_running(execution, redrives):
                details = {"name": name, "output": json.dumps(value)}
                kind = f"{states[name]['Type']}StateExited"
                stepfunctions._add_event(execution, kind, {"stateExitedEventDetails": details})
                _end_by_fault(execution, name)
            name = following
        if is_running(execution, redrives):
            execution.update(status="SUCCEEDED", output=json.dumps(value), stopDate=now_iso())
            del execution["resume"]
            details = {"output": execution["output"]}
            stepfunctions._add_event(execution, "ExecutionSucceeded", {"executionSucceededEventDetails": details})
            stepfunctions._emit_execution_status_event(execution)
    except ExecutionEnded:
        return
    except stepfunctions._ExecutionError as error:
        failure = error.error, error.cause
    except Exception as error:
        logger.exception("execution %s", execution["executionArn"])
        failure = "States.Runtime", str(error)
    else:
        return
    if is_running(execution, redrives):
        stepfunctions._fail_execution(execution, *failure)


def _step(
    execution: dict[str, Any], states: dict[str, Any], name: str, value: Any, context: dict[str, Any]
) -> tuple[Any, str | None]:
    """Run one state; return its output and the name of the next. Raises _ExecutionError and ExecutionEnded."""
    state = states[name]
    kind = state["Type"]
    context["State"] = {"Name": name, "EnteredTime": now_iso(), "RetryCount": 0}
    details = {"name": name, "input": json.dumps(value)}
    stepfunctions._add_event(execution, f"{kind}StateEntered", {"stateEnteredEventDetails": details})
    if kind == "Fail":
        raise stepfunctions._ExecutionError(*stepfunctions._fail_state_error(state, value, context))
    if kind == "Succeed":
        taken = stepfunctions._apply_input_path(state, value, context)
        return stepfunctions._apply_output_path(state, taken, context), None
    execute = getattr(stepfunctions, f"_execute_{kind.lower()}")
    if kind in ("Task", "Parallel", "Map"):
        return execute(state, value, execution, context)
    return execute(state, value, context)


def _end_by_fault(execution: dict[str, Any], state: str) -> None:
    """End the execution if a fault asks for it: what the state does is done, and the next has not begun."""
    fault = _faults.take("ExecutionEnds", execution["name"], lambda options: options["State"] in (None, state))
    if fault is None:
        return
    match fault.options["Status"]:
        case "ABORTED":
            stepfunctions._stop_execution({"executionArn": execution["executionArn"]})
        case "TIMED_OUT":
            _time_out(execution, execution.get("redriveCount", 0))
        case "FAILED":
            stepfunctions._fail_execution(execution, "States.Runtime", f"a fault ended the execution after {state}")


def _redrive_execution(request: dict[str, Any]) -> Any:
    execution = stepfunctions._executions.get(request.get("executionArn"))
    if execution is None:
        return error_response_json("ExecutionDoesNotExist", f"Execution {request.get('executionArn')} not found", 400)
    if execution["status"] not in REDRIVABLE or "resume" not in execution:
        return error_response_json(
            "ExecutionNotRedrivable", f"Execution is {execution['status']} and cannot be redriven", 400
        )
    execution.update(
        status="RUNNING",
        stopDate=None,
        output=None,
        error=None,
        cause=None,
        redriveCount=execution.get("redriveCount", 0) + 1,
        redriveDate=now_iso(),
    )
    details = {"redriveCount": execution["redriveCount"]}
    stepfunctions._add_event(execution, "ExecutionRedriven", {"executionRedrivenEventDetails": details})
    stepfunctions._emit_execution_status_event(execution)
    run = contextvars.copy_context().run
    thread = threading.Thread(target=run, args=(stepfunctions._run_execution, execution["executionArn"]), daemon=True)
    thread.start()
    return json_response({"redriveDate": execution["redriveDate"]})


def _handle_request(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    async def handle_request(method: str, path: str, headers: dict, body: bytes, query_params: dict) -> Any:
        if headers.get("x-amz-target", "").endswith(".RedriveExecution"):
            return stepfunctions._finalize_response(_redrive_execution(json.loads(body)))
        return await original(method, path, headers, body, query_params)

    return handle_request


def _describe_execution(original: Callable[..., Any]) -> Callable[..., Any]:
    """Tells of redrives, too."""

    @functools.wraps(original)
    def describe_execution(request: dict[str, Any]) -> Any:
        answer = original(request)
        execution = stepfunctions._executions.get(request.get("executionArn"))
        if execution is None:
            return answer
        redrivable = execution["status"] in REDRIVABLE and "resume" in execution
        told: dict[str, Any] = {"redriveCount": execution.get("redriveCount", 0)}
        told["redriveStatus"] = "REDRIVABLE" if redrivable else "NOT_REDRIVABLE"
        if not redrivable:
            told["redriveStatusReason"] = f"Execution is {execution['status']} and cannot be redriven"
        if told["redriveCount"]:
            told["redriveDate"] = execution["redriveDate"]
        return json_response(json.loads(answer[2]) | told)

    return describe_execution


def _fail_execution(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def fail_execution(execution: dict, error: str, cause: str) -> None:
        if execution["status"] == "RUNNING":
            original(execution, error, cause)

    return fail_execution


def _add_event(original: Callable[..., Any]) -> Callable[..., Any]:
    """An execution's history ends with its end, whatever a thread of it still does."""

    @functools.wraps(original)
    def add_event(execution: dict, event_type: str, details: dict | None = None) -> Any:
        if execution["status"] != "RUNNING" and not event_type.startswith("Execution"):
            return None
        return original(execution, event_type, details)

    return add_event


def _repair(defect: str, function: str, digest: str, repaired: Callable[..., Any]) -> Repair:
    return Repair(defect, stepfunctions.__name__, function, digest, repaired)


REPAIRS = [
    _repair(
        "TimeoutSeconds of the machine is ignored, and where an execution ended is forgotten",
        "_run_execution",
        "996dff84e0e0",
        _run_execution,
    ),
    _repair("there is no RedriveExecution", "handle_request", "efa6e8c4532a", _handle_request),
    _repair("an execution does not tell of redrives", "_describe_execution", "c3ad294ad8b5", _describe_execution),
    _repair("a stopped execution can turn FAILED", "_fail_execution", "e6da895fa0b7", _fail_execution),
    _repair("the history goes on after the execution's end", "_add_event", "b1db143ccd21", _add_event),
]
