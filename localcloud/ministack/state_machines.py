"""Repairs of MiniStack's Step Functions, and the task that a thread of it works for.

What is cited is Step Functions' developer guide and the Amazon States Language.
"""

import contextvars
import copy
import functools
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import Any

from ministack.core.responses import error_response_json
from ministack.services import lambda_svc, stepfunctions

from localcloud.ministack import identities
from localcloud.ministack.executions import ExecutionEnded, is_running, loses_reply_of
from localcloud.ministack.repairs import Repair

STATES_PRINCIPAL = "states.amazonaws.com"

PAYLOAD_LIMIT_BYTES = 262_144
"""Of a state's input, output and a task's result, and of what a state assigns, in UTF-8:
https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html"""

UNCATCHABLE = ("States.DataLimitExceeded", "States.Runtime")
"""States.ALL and States.TaskFailed do not match these:
https://docs.aws.amazon.com/step-functions/latest/dg/concepts-error-handling.html"""


@dataclass(frozen=True)
class Task:
    """What a thread works on: the execution, and whether the state has given up waiting for it."""

    execution: dict[str, Any]
    redrives: int
    """Of the execution, when the task began."""
    abandoned: threading.Event = field(default_factory=threading.Event)

    def ended(self) -> bool:
        return self.abandoned.is_set() or not is_running(self.execution, self.redrives)


_task: contextvars.ContextVar[Task] = contextvars.ContextVar("task")


def current_task() -> Task:
    """The task of this thread. Raises LookupError outside of a Task state."""
    return _task.get()


def refused_by_role(action: str, resource_arn: str) -> str | None:
    """Return why the role of this thread's state machine may not do `action`, or None if it may."""
    return identities.refusal(access_key_of_role(), action, resource_arn)


def access_key_of_role() -> str:
    """Assume the role of this thread's state machine. Raises RoleCannotBeAssumed."""
    execution = current_task().execution
    role_arn = stepfunctions._state_machines[execution["stateMachineArn"]]["roleArn"]
    access_key, _, _ = identities.assume_role(role_arn, STATES_PRINCIPAL, execution["name"][:64])
    return access_key


def _execute_task(original: Callable[..., Any]) -> Callable[..., Any]:
    """Makes the execution known to the integrations, and evaluates the timeout, which may be an expression."""

    @functools.wraps(original)
    def execute_task(state: dict, raw_input: Any, execution: dict, context: dict) -> Any:
        token = _task.set(Task(execution, execution.get("redriveCount", 0)))
        try:
            if isinstance(state.get("TimeoutSeconds"), str):
                seconds = stepfunctions._jsonata_state_field(state, "TimeoutSeconds", "number", raw_input, context)
                state = {**state, "TimeoutSeconds": seconds}
            return _limited(original(state, raw_input, execution, context))
        finally:
            _task.reset(token)

    return execute_task


def _invoke_resource(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def invoke_resource(resource: str, parameters: Any) -> Any:
        if current_task().ended():
            raise ExecutionEnded(resource)
        _check_size(parameters, f"The task {resource!r} was given an input")
        result = original(resource, parameters)
        _check_size(result, f"The task {resource!r} returned a result")
        return result

    return invoke_resource


def _invoke_resource_with_timeout(_original: Callable[..., Any]) -> Callable[..., Any]:
    """Tells the task that its state has given up: a job that runs for it is then stopped."""

    def invoke_with_timeout(resource: str, parameters: Any, timeout_seconds: float) -> Any:
        task = Task(current_task().execution, current_task().redrives)
        token = _task.set(task)
        try:
            pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="task")
            invoke = stepfunctions._invoke_resource
            future = pool.submit(contextvars.copy_context().run, invoke, resource, parameters)
            pool.shutdown(wait=False)
            return future.result(timeout=timeout_seconds)
        except FutureTimeoutError:
            task.abandoned.set()
            raise stepfunctions._ExecutionError(
                "States.Timeout", f"Task timed out after {timeout_seconds} seconds"
            ) from None
        finally:
            _task.reset(token)

    return invoke_with_timeout


def _limit_output(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def execute(*arguments: Any) -> Any:
        return _limited(original(*arguments))

    return execute


def _limited(executed: tuple[Any, str | None]) -> tuple[Any, str | None]:
    _check_size(executed[0], "The state returned an output")
    return executed


def _check_size(value: Any, what: str) -> None:
    if len(json.dumps(value, ensure_ascii=False).encode()) > PAYLOAD_LIMIT_BYTES:
        raise stepfunctions._ExecutionError(
            "States.DataLimitExceeded", f"{what} with a size exceeding the maximum number of bytes service limit."
        )


def _start_execution(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def start_execution(request: dict) -> Any:
        text = request.get("input", "{}")
        if len(text.encode()) > PAYLOAD_LIMIT_BYTES:
            return error_response_json(
                "InvalidExecutionInput", f"Invalid execution input: larger than {PAYLOAD_LIMIT_BYTES} bytes", 400
            )
        try:
            json.loads(text)
        except ValueError as error:
            return error_response_json("InvalidExecutionInput", f"Invalid execution input: not JSON: {error}", 400)
        return original(request)

    return start_execution


def _apply_state_assign(_original: Callable[..., Any]) -> Callable[..., Any]:
    """All expressions of an Assign see the variables as they were before it, and their values have a limit together:
    https://docs.aws.amazon.com/step-functions/latest/dg/workflow-variables.html"""

    def apply_state_assign(
        state: dict, raw_input: Any, context: dict | None, result: Any = None, error_output: Any = None
    ) -> None:
        assign = state.get("Assign")
        if context is None or not isinstance(assign, dict):
            return
        if stepfunctions._state_query_language(state, context) != "JSONata":
            return
        values = stepfunctions._apply_jsonata_template(assign, raw_input, context, result, error_output)
        _check_size(values, "The state assigned variables")
        context.setdefault("variables", {}).update(values)

    return apply_state_assign


def _apply_output_path(original: Callable[..., Any]) -> Callable[..., Any]:
    """A Succeed state of JSONata has an Output in the place of OutputPath."""

    @functools.wraps(original)
    def apply_output_path(state: dict, data: Any, context: dict | None = None) -> Any:
        if state.get("Type") == "Succeed" and stepfunctions._state_query_language(state, context) == "JSONata":
            return stepfunctions._apply_jsonata_output(state, data, context, default=data)
        return original(state, data, context)

    return apply_output_path


def _call_lambda(original: Callable[..., Any]) -> Callable[..., Any]:
    """The state machine's role decides, as on AWS; and the reply may be lost."""

    @functools.wraps(original)
    def call_lambda(function: str, event: Any) -> Any:
        _, config, _ = lambda_svc._get_func_record_for_ref(function)
        if config is not None:
            try:
                refused = refused_by_role("lambda:InvokeFunction", config["FunctionArn"])
            except identities.RoleCannotBeAssumed as error:
                refused = str(error)
            if refused:
                raise stepfunctions._ExecutionError("Lambda.AWSLambdaException", refused)
        result = original(function, event)
        if config is not None and loses_reply_of(config["FunctionName"]):
            raise stepfunctions._ExecutionError("Lambda.SdkClientException", "Unable to execute HTTP request")
        return result

    return call_lambda


def _run_parallel_branches(original: Callable[..., Any]) -> Callable[..., Any]:
    """Arguments, Output and Assign of a JSONata Parallel, whose branches have variables of their own: a branch reads
    those from outside, and what it assigns ends with it."""

    @functools.wraps(original)
    def run_parallel_branches(state: dict, raw_input: Any, execution: dict, context: dict) -> Any:
        if stepfunctions._state_query_language(state, context) != "JSONata":
            return original(state, raw_input, execution, context)
        branches = state["Branches"]
        branch_input = stepfunctions._apply_jsonata_arguments(state, raw_input, context)
        with ThreadPoolExecutor(max_workers=len(branches), thread_name_prefix="branch") as pool:
            running = [
                pool.submit(
                    contextvars.copy_context().run,
                    stepfunctions._run_sub_machine,
                    branch["States"],
                    branch["StartAt"],
                    branch_input,
                    execution,
                    copy.deepcopy(context),
                )
                for branch in branches
            ]
        results = [branch.result() for branch in running]
        output = stepfunctions._apply_jsonata_output(state, raw_input, context, result=results, default=results)
        stepfunctions._apply_state_assign(state, raw_input, context, result=results)
        return output, stepfunctions._next_or_end(state)

    return run_parallel_branches


def _run_distributed_map(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def run_distributed_map(
        state: dict, raw_input: Any, effective: Any, processor: dict, execution: dict, context: dict
    ) -> Any:
        if stepfunctions._state_query_language(state, context) == "JSONata":
            raise stepfunctions._ExecutionError(
                "States.Runtime", "a distributed Map in JSONata is not supported by the local cloud"
            )
        return original(state, raw_input, effective, processor, execution, context)

    return run_distributed_map


def _error_matches(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def error_matches(error_equals: list[str], error: str) -> bool:
        if error in UNCATCHABLE:
            return error in error_equals
        return original(error_equals, error)

    return error_matches


def _put_events(original: Callable[..., Any]) -> Callable[..., Any]:
    """The Detail of an entry is an object in a state machine, and a string on the wire:
    https://docs.aws.amazon.com/step-functions/latest/dg/connect-eventbridge.html"""

    @functools.wraps(original)
    def put_events(resource: str, parameters: dict) -> Any:
        entries = [
            {**entry, "Detail": json.dumps(entry["Detail"])} if isinstance(entry.get("Detail"), dict) else entry
            for entry in parameters.get("Entries", [])
        ]
        result = original(resource, {**parameters, "Entries": entries})
        if result.get("FailedEntryCount"):
            raise stepfunctions._ExecutionError("EventBridge.FailedEntry", json.dumps(result))
        return result

    stepfunctions._SERVICE_DISPATCH["arn:aws:states:::events:putEvents"] = put_events  # it holds the function itself
    return put_events


def _repair(defect: str, function: str, digest: str, repaired: Callable[..., Any]) -> Repair:
    return Repair(defect, stepfunctions.__name__, function, digest, repaired)


_NO_LIMIT = "payloads of more than 256 KiB pass"

REPAIRS = [
    _repair("Assign is not atomic, and takes any size", "_apply_state_assign", "f9cc15f006a0", _apply_state_assign),
    _repair("Succeed ignores Output", "_apply_output_path", "e9cfd0067244", _apply_output_path),
    _repair(
        "a JSONata Parallel ignores Arguments, Output and Assign, and its branches share their variables",
        "_run_parallel_branches",
        "b8c7f6915297",
        _run_parallel_branches,
    ),
    _repair(
        "an expression in a task's TimeoutSeconds fails the execution", "_execute_task", "53c818d247db", _execute_task
    ),
    _repair(
        "a task that timed out goes on unknowing",
        "_invoke_resource_with_timeout",
        "faeed0bf70d5",
        _invoke_resource_with_timeout,
    ),
    _repair(f"{_NO_LIMIT}, and input that is not JSON", "_start_execution", "9923282fc76c", _start_execution),
    _repair(_NO_LIMIT, "_invoke_resource", "a85d2be9a858", _invoke_resource),
    _repair(_NO_LIMIT, "_execute_pass", "b1dff47048bc", _limit_output),
    _repair(_NO_LIMIT, "_execute_choice", "468955fcd4a4", _limit_output),
    _repair(_NO_LIMIT, "_execute_wait", "a1012679c72d", _limit_output),
    _repair(_NO_LIMIT, "_execute_parallel", "2166e1f53e5f", _limit_output),
    _repair(_NO_LIMIT, "_execute_map", "18ad39652912", _limit_output),
    _repair(
        "a distributed Map in JSONata ignores its fields", "_run_distributed_map", "2b77d3ec0e04", _run_distributed_map
    ),
    _repair(
        "an event's Detail given as an object is not delivered",
        "_invoke_events_put_events",
        "92d6ffabce62",
        _put_events,
    ),
    _repair("the state machine's role is not asked", "_call_lambda", "25830369b126", _call_lambda),
    _repair("States.ALL catches what cannot be caught", "_error_matches", "519b9dc729c5", _error_matches),
]
