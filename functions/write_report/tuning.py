"""The trials: how each did, what each hyperparameter has to do with it, and how soon the best was found."""

import re
from typing import Any

from charts import SERIES, Figure, Table, draw
from markupsafe import Markup
from run import Run
from wording import counted, duration, figures, percent

FEW_VALUES = 5
"""Up to so many different values are shown as categories."""


def section(run: Run) -> dict[str, Any] | None:
    leaderboard = run.document("leaderboard")
    trials = leaderboard.get("trials")
    if not trials:
        return None
    finished = [trial for trial in trials if trial["objective"] is not None]
    names = sorted({name for trial in trials for name in trial["hyperparameters"]})
    return {
        "sentence": _sentence(trials, finished),
        "chosen": {name: figures(value) for name, value in trials[0]["hyperparameters"].items()} if finished else {},
        "figures": [_so_far(finished), *(_by(name, finished) for name in names)] if finished else [],
        "leaderboard": _table(run, trials, names, leaderboard.get("chosen")),
    }


def _sentence(trials: list[dict[str, Any]], finished: list[dict[str, Any]]) -> str:
    if not finished:
        return f"None of {counted(len(trials), 'trial')} finished."
    best = finished[0]["objective"]
    said = f"The best of {counted(len(trials), 'trial')} reached a validation accuracy of {percent(best)}"
    if len(finished) > 1:
        middle = sorted(trial["objective"] for trial in finished)[len(finished) // 2]
        said += f"; half of those that finished reached {percent(middle)}"
    if len(finished) < len(trials):
        said += f"; {counted(len(trials) - len(finished), 'trial')} did not finish"
    return said + "."


def number_of(trial: dict[str, Any]) -> int:
    """Return which trial it was: SageMaker numbers them in their names, <tuning job>-007-1a2b3c4d."""
    found = re.search(r"-(\d{3,})-[0-9a-f]+$", trial["job"])
    return int(found[1]) if found else 0


def _so_far(finished: list[dict[str, Any]]) -> Figure:
    rows, best = [], 0.0
    for trial in sorted(finished, key=number_of):
        best = max(best, trial["objective"])
        rows.append({"trial": number_of(trial), "objective": trial["objective"], "best": best})
    x = {
        "field": "trial",
        "type": "quantitative",
        "title": "trial",
        "axis": {"tickMinStep": 1, "format": "d"},
        "scale": {"zero": False},
    }
    y = {"type": "quantitative", "title": None, "scale": {"zero": False}, "axis": {"format": ".0%"}}
    spec = {
        "data": {"values": rows},
        "encoding": {"x": x},
        "layer": [
            {
                "mark": {"type": "line", "interpolate": "step-after", "stroke": SERIES[1]},
                "encoding": {"y": {**y, "field": "best"}},
            },
            {
                "mark": {"type": "point", "fill": SERIES[0], "opacity": 0.85},
                "encoding": {"y": {**y, "field": "objective"}},
            },
        ],
    }
    first = next(row["trial"] for row in rows if row["best"] == best)
    description = f"Validation accuracy by trial, and the best so far: {percent(best)} was reached by trial {first}."
    table = Table(
        ("trial", "accuracy", "best so far"),
        [(row["trial"], percent(row["objective"], 2), percent(row["best"], 2)) for row in rows],
    )
    return Figure("Best so far", description, draw(spec, description), table)


def _by(name: str, finished: list[dict[str, Any]]) -> Figure:
    rows = [
        {"value": trial["hyperparameters"][name], "objective": trial["objective"], "rank": trial["rank"]}
        for trial in finished
        if name in trial["hyperparameters"]
    ]
    y = {
        "field": "objective",
        "type": "quantitative",
        "title": None,
        "scale": {"zero": False},
        "axis": {"format": ".0%"},
    }
    fill = {"condition": {"test": "datum.rank == 1", "value": SERIES[1]}, "value": SERIES[0]}
    size = {"condition": {"test": "datum.rank == 1", "value": 110}, "value": 45}
    spec = {
        "data": {"values": rows},
        "mark": {"type": "point", "opacity": 0.85},
        "encoding": {"x": _axis_of(name, rows), "y": y, "fill": fill, "size": size},
    }
    description = f"Validation accuracy by {name}, one point a trial; the best had {figures(rows[0]['value'])}."
    return Figure(
        f"Accuracy by {name}", description, draw(spec, description), note="The chosen trial is the larger point."
    )


def _axis_of(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the axis of a hyperparameter, and make its values numbers where they are: SageMaker has them as text."""
    axis: dict[str, Any] = {"field": "value", "title": name}
    try:
        numbers = [float(row["value"]) for row in rows]
    except ValueError:
        return {**axis, "type": "nominal", "axis": {"labelAngle": 0}}
    if len(set(numbers)) <= FEW_VALUES and all(number == int(number) for number in numbers):
        return {
            **axis,
            "type": "ordinal",
            "sort": sorted({row["value"] for row in rows}, key=float),
            "axis": {"labelAngle": 0},
        }
    for row, number in zip(rows, numbers, strict=True):
        row["value"] = number
    wide = min(numbers) > 0 and max(numbers) / min(numbers) >= 8
    scale = {"type": "log", "nice": False} if wide else {"zero": False}
    return {
        **axis,
        "type": "quantitative",
        "scale": scale,
        "axis": {"format": ".0e" if wide else "~g", "tickCount": 5, "labelOverlap": True},
    }


def _table(run: Run, trials: list[dict[str, Any]], names: list[str], chosen: str | None) -> Table:
    rows = [
        (
            trial["rank"] or "–",
            Markup('<a href="{}">{}</a>{}').format(
                run.console.sagemaker("jobs", trial["job"]), trial["job"], " (chosen)" if trial["job"] == chosen else ""
            ),
            percent(trial["objective"], 2),
            *(figures(trial["hyperparameters"].get(name)) for name in names),
            duration(trial["seconds"]),
            trial["failure_reason"] or trial["status"],
        )
        for trial in trials
    ]
    return Table(("rank", "trial", "accuracy", *names, "time", "end"), rows)
