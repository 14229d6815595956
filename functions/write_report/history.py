"""The course of an execution, from Step Functions' history and the definition that it runs by."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

FAILED = (
    "taskFailedEventDetails",
    "taskTimedOutEventDetails",
    "taskSubmitFailedEventDetails",
    "taskStartFailedEventDetails",
)


@dataclass
class State:
    """A state over all its visits."""

    name: str
    visits: int = 0
    seconds: float | None = None  # null: not left yet
    retries: int = 0
    error: str | None = None
    """What its last task failed with, where nothing tried it again."""


@dataclass(frozen=True)
class Course:
    """What was entered, first entered first; which steps were taken from one to the next, and how often."""

    states: tuple[State, ...]
    steps: dict[tuple[str, str], int]
    started: datetime | None
    seconds: float
    """From the start to the last event."""


def read_course(events: Iterable[dict[str, Any]]) -> Course:
    states: dict[str, State] = {}
    steps: dict[tuple[str, str], int] = {}
    entered: dict[str, datetime] = {}
    current: State | None = None
    first = last = None
    for event in events:
        first, last = first or event["timestamp"], event["timestamp"]
        if details := event.get("stateEnteredEventDetails"):
            step = (current.name if current else "", details["name"])
            steps[step] = steps.get(step, 0) + 1
            current = states.setdefault(details["name"], State(details["name"]))
            current.visits += 1
            current.error = None
            entered[current.name] = event["timestamp"]
        elif details := event.get("stateExitedEventDetails"):
            left = states[details["name"]]
            spent = (event["timestamp"] - entered[left.name]).total_seconds()
            left.seconds = round((left.seconds or 0) + spent, 3)
        elif current and "taskScheduledEventDetails" in event:
            current.retries += current.error is not None
            current.error = None
        elif current and (failed := next((event[name] for name in FAILED if name in event), None)):
            current.error = failed.get("error", "failed")
    started = first if isinstance(first, datetime) else None
    seconds = (last - first).total_seconds() if first and last else 0.0
    return Course(tuple(states.values()), steps, started, seconds)


def main_line(definition: dict[str, Any]) -> list[str]:
    """Return the states of a run in which all goes well: those of the file, up to the first that ends a run."""
    names = []
    for name, state in definition["States"].items():
        names.append(name)
        if state.get("End") or state["Type"] == "Succeed":
            break
    return names


def ways_from(state: dict[str, Any]) -> list[str]:
    """Return the states that may follow a state where nothing fails."""
    ways = [choice["Next"] for choice in state.get("Choices", [])]
    return list(dict.fromkeys([*ways, *(state[key] for key in ("Default", "Next") if key in state)]))
