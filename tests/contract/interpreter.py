"""Walks the state machine with given results in the place of tasks: JSONata by the reference engine's Python port.

An expression without a result is an error, as in Step Functions; waits take no time, but the clock goes on with them.
"""

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jsonata

EXECUTION_ARN = "arn:aws:states:eu-west-1:123456789012:execution:kelpie-train-and-deploy:first"
MOST_STEPS = 2_000


class TaskError(Exception):
    """What a task ends with: Error and Cause as Step Functions has them."""

    def __init__(self, error: str, cause: str = ""):
        super().__init__(error, cause)
        self.output = {"Error": error, "Cause": cause}


class QueryEvaluationError(Exception):
    """An expression failed or has no result."""


@dataclass
class Run:
    """What a walk came to. requests: the Arguments of each visit, by state. evaluated: states and their expressions."""

    path: list[str] = field(default_factory=list)
    requests: dict[str, list[Any]] = field(default_factory=dict)
    evaluated: set[tuple[str, str]] = field(default_factory=set)
    status: str = "RUNNING"
    output: Any = None
    error: str | None = None
    cause: str | None = None


def walk(
    definition: dict[str, Any], run_input: Any, results: dict[str, Any], execution: dict[str, Any] | None = None
) -> Run:
    """Run the machine. results: by state a result, a TaskError, or a list of them, one a visit, the last repeated.

    execution: what its context has of the execution, beside its Id.
    """
    run, variables, clock_seconds = Run(), {}, 0.0
    name, data = definition["StartAt"], run_input
    for _ in range(MOST_STEPS):
        state = definition["States"][name]
        run.path.append(name)
        scope = {
            "input": data,
            "context": {"Execution": {"Id": EXECUTION_ARN, **(execution or {})}, "State": {"Name": name}},
        }
        query = _query(scope, variables, clock_seconds, run, name)
        match state["Type"]:
            case "Fail":
                run.status, run.error, run.cause = "FAILED", query(state["Error"]), query(state["Cause"])
                return run
            case "Choice":
                taken = next((rule for rule in state["Choices"] if query(rule["Condition"]) is True), state)
                variables |= query(taken.get("Assign", {}))
                name = taken.get("Next", state["Default"])
                continue
            case "Wait":
                clock_seconds += query(state["Seconds"])
            case "Task":
                try:
                    scope["result"] = _result(run, name, query(state["Arguments"]), results)
                except TaskError as error:
                    names = (error.output["Error"], "States.ALL")
                    catcher = next(one for one in state["Catch"] if set(one["ErrorEquals"]) & set(names))
                    scope["errorOutput"] = error.output
                    variables |= query(catcher.get("Assign", {}))
                    data, name = error.output, catcher["Next"]
                    continue
        assigned = query(state.get("Assign", {}))
        data = query(state["Output"]) if "Output" in state else scope.get("result", data)
        variables |= assigned
        if state.get("End"):
            run.status, run.output = "SUCCEEDED", data
            return run
        name = state["Next"]
    raise AssertionError(f"no end after {MOST_STEPS} steps: {run.path[-6:]}")


def evaluate(expression: str, bindings: dict[str, Any], clock_seconds: float = 0.0) -> Any:
    """Return the value of `{% ... %}`. Raises QueryEvaluationError."""
    text = expression.removeprefix("{%").removesuffix("%}").strip()
    parsed = jsonata.Jsonata.jsonata(text)
    parsed.register_lambda("hash", lambda value, algorithm: _hash(value, algorithm))
    parsed.register_lambda("parse", json.loads)
    parsed.register_lambda("millis", lambda: int(clock_seconds * 1000))
    try:
        value = parsed.evaluate(None, {key: _bound(value) for key, value in bindings.items()})
    except Exception as error:
        raise QueryEvaluationError(f"{text}: {error}") from error
    if value is None:
        raise QueryEvaluationError(f"{text} has no result")
    return value


def _query(
    scope: dict[str, Any], variables: dict[str, Any], clock_seconds: float, run: Run, name: str
) -> Callable[[Any], Any]:
    def query(template: Any) -> Any:
        if isinstance(template, dict):
            return {key: query(value) for key, value in template.items()}
        if isinstance(template, list):
            return [query(value) for value in template]
        if isinstance(template, str) and template.startswith("{%"):
            run.evaluated.add((name, template))
            return evaluate(template, {**variables, "states": scope}, clock_seconds)
        return template

    return query


def _result(run: Run, name: str, arguments: Any, results: dict[str, Any]) -> Any:
    visits = run.requests.setdefault(name, [])
    visits.append(arguments)
    given = results[name]
    if isinstance(given, list):
        given = given[min(len(visits), len(given)) - 1]
    if isinstance(given, TaskError):
        raise given
    return copy.deepcopy(given)


def _bound(value: Any) -> Any:
    return jsonata.utils.Utils.NULL_VALUE if value is None else value


def _hash(value: str, algorithm: str) -> str:
    assert algorithm == "SHA-256"
    return hashlib.sha256(value.encode()).hexdigest()
