"""The state machine of an execution as a path: what it went through, where it is, and what lies ahead."""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kelpie.execution import StateVisit

Standing = Literal["done", "now", "failed", "ahead"]


@dataclass(frozen=True)
class Node:
    """One state on the path. Choices are not shown: what they led to is."""

    name: str
    comment: str
    """Why the state is there, as the definition says."""
    standing: Standing
    visits: int
    seconds: float | None
    """Over all visits; None for a state that was not entered."""


def path(definition: dict[str, Any], visits: Sequence[StateVisit], status: str, now: datetime.datetime) -> list[Node]:
    """Return the states in the order of their first entry and, while the execution runs, the shortest way from there
    to a good end.

    now: until when a state that was not left has lasted: the present, or the execution's end.
    """
    states = definition["States"]
    entered: dict[str, list[StateVisit]] = {}
    for visit in visits:
        entered.setdefault(visit.name, []).append(visit)
    nodes = [_entered(name, states.get(name, {}), stays, status, now) for name, stays in entered.items()]
    if status in ("RUNNING", "PENDING_REDRIVE"):
        latest = visits[-1].name if visits else None
        ahead = _way_to_good_end(states, latest) if latest in states else [definition["StartAt"]]
        if latest is None:
            ahead += _way_to_good_end(states, definition["StartAt"])
        nodes += [Node(name, _comment(states[name]), "ahead", 0, None) for name in ahead if name not in entered]
    return [node for node in nodes if states.get(node.name, {}).get("Type") != "Choice"]


def _entered(name: str, state: dict[str, Any], stays: list[StateVisit], status: str, now: datetime.datetime) -> Node:
    seconds = sum(((stay.left or now) - stay.entered).total_seconds() for stay in stays)
    standing: Standing = "done"
    if stays[-1].failed:
        standing = "failed"
    elif stays[-1].left is None:
        standing = "now" if status in ("RUNNING", "PENDING_REDRIVE") else "failed"
    return Node(name, _comment(state), standing, len(stays), round(max(seconds, 0.0), 1))


def _way_to_good_end(states: dict[str, Any], start: str | None) -> list[str]:
    """Return the fewest states from `start`, left out itself, to an end that is no failure; none if there is no way.

    Of ways that are equally long the one whose states come first in the definition, which has the usual case first.
    """
    order = {name: number for number, name in enumerate(states)}
    waiting = deque([[start]]) if start in states else deque()
    seen = {start}
    while waiting:
        way = waiting.popleft()
        state = states[way[-1]]
        if state.get("End") or state["Type"] == "Succeed":
            return [name for name in way[1:] if name is not None]
        for following in sorted(filter(order.__contains__, _next(state)), key=order.__getitem__):
            if following not in seen:
                seen.add(following)
                waiting.append([*way, following])
    return []


def _next(state: dict[str, Any]) -> Iterator[str]:
    """What may follow a state if nothing fails: where its Catch leads is left out."""
    for choice in state.get("Choices", []):
        yield choice["Next"]
    for key in ("Next", "Default"):
        if key in state:
            yield state[key]


def _comment(state: dict[str, Any]) -> str:
    return str(state.get("Comment", ""))
