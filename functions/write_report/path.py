"""The path: the state machine with the way that the run took, and how long each state took."""

from datetime import date
from typing import Any

import graph
from charts import Figure, Table, bars, draw
from cost import costs
from run import Run
from wording import counted, dollars, duration

LONGEST = 10
OLD_DAYS = 365
PRICES = "https://aws.amazon.com/sagemaker/ai/pricing/"


def section(run: Run) -> dict[str, Any] | None:
    states = run.course.states
    if not states:
        return None
    retries = sum(state.retries for state in states)
    said = f"{counted(len(states), 'state')} in {duration(run.course.seconds)}"
    said += f", with {counted(retries, 'retry', 'retries')}" if retries else ", without a retry"
    spent = costs(run)
    return {
        "sentence": f"{said}.",
        "prices": _prices(run),
        "graph": _graph(run),
        "times": _times(run),
        "states": Table(
            ("state", "time", "visits", "retries", *(["cost"] if spent else []), "error"),
            [
                (
                    one.name,
                    duration(one.seconds),
                    one.visits,
                    one.retries,
                    *([dollars(spent.get(one.name))] if spent else []),
                    one.error or "–",
                )
                for one in states
            ],
        ),
        "undrawn": graph.undrawn(run.course, run.definition),
    }


def _prices(run: Run) -> str:
    """Return what the costs are made of, and what they could have come to."""
    cost = run.plan.get("cost")
    if not cost:
        return ""
    said = "Costs are estimates: the time that SageMaker bills of each job at on-demand prices of "
    said += (
        f"{cost['prices_region']} as of {cost['prices_as_of']}{_age(cost['prices_as_of'], run.plan['created_at'])}. "
    )
    said += f"All jobs at their time limit would have come to {dollars(cost['most_usd'])}; "
    return f"{said}the endpoint costs {dollars(cost['endpoint_usd_per_hour'])} an hour until it is deleted."


def _age(prices_as_of: str, created_at: str) -> str:
    """Return a warning where the prices had been old when the run was planned."""
    days = (date.fromisoformat(created_at[:10]) - date.fromisoformat(prices_as_of)).days
    return f" ({days} days old: compare them with {PRICES})" if days > OLD_DAYS else ""


def _graph(run: Run) -> Figure:
    states = run.course.states
    way = " → ".join(state.name for state in states)
    description = f"The state machine's graph with the path taken: {way}."
    drawing = draw(graph.spec(run.course, run.definition), description)
    return Figure(
        "The path taken", description, drawing, note="Blue was taken, red ended in an error, grey was not needed."
    )


def _times(run: Run) -> list[Figure]:
    longest = sorted((one for one in run.course.states if one.seconds), key=lambda one: -(one.seconds or 0))[:LONGEST]
    if not longest:
        return []
    rows = [{"state": one.name, "seconds": one.seconds, "text": duration(one.seconds)} for one in longest]
    top = longest[0]
    description = (
        f"Time by state, longest first: {top.name} took {duration(top.seconds)} of {duration(run.course.seconds)}."
    )
    longest_seconds = top.seconds or 0
    spec = bars(rows, "state", "seconds", "seconds", domain=[0, 1.25 * longest_seconds])
    return [Figure("Time by state", description, draw(spec, description))]
