"""The training: its curves with the debugger's findings at their step, every attempt, and where the time went."""

import math
from typing import Any

from charts import Figure, Table, draw, lines
from markupsafe import Markup
from run import Run
from wording import counted, figures, percent

SHOWN = {"NoIssuesFound": "no\u00a0issue", "IssuesFound": "issue", "Error": "error"}


def section(run: Run) -> dict[str, Any] | None:
    review, findings, history = (run.document(name) for name in ("debugger_review", "findings", "training_history"))
    if not review and not findings and not history:
        return None
    judged = review.get("findings") or findings.get("findings", [])
    return {
        "sentence": review.get("reason") or _in_short(judged),
        "figures": [*curves(findings), *epochs(history, findings)],
        "values": _values(history),
        "decisions": {name.replace("_", " "): figures(value) for name, value in history.get("decisions", {}).items()},
        "rules": rules(judged),
        "attempts": _attempts(run, review),
        "profile": _profile(run.document("profile")),
    }


def curves(findings: dict[str, Any]) -> list[Figure]:
    """Return loss, accuracy and learning rate over training steps, train and eval apart."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for curve in findings.get("curves", []):
        by_name.setdefault(curve["name"], []).append(curve)
    marks = issues(findings)
    return [_curve(name, parts, marks) for name, parts in by_name.items()]


def epochs(history: dict[str, Any], findings: dict[str, Any]) -> list[Figure]:
    """Return accuracy and images a second over epochs, and what the findings have no curves of."""
    rows = history.get("epochs", [])
    known = {curve["name"] for curve in findings.get("curves", [])}
    steps = findings.get("steps") or 1
    marks = [{"epoch": mark["step"] / steps * len(rows), "label": mark["label"]} for mark in issues(findings)]
    kinds: list[tuple[str, dict[str, str], dict[str, Any]]] = [
        ("accuracy", {"train": "train_accuracy", "valid": "valid_accuracy"}, {"format": ".0%"}),
        ("loss", {"train": "train_loss", "valid": "valid_loss"}, {}),
        ("learning rate", {"highest": "learning_rate"}, {"format": "~g"}),
        ("images a second", {"train": "images_per_second"}, {}),
    ]
    return [
        _by_epoch(name, fields, axis, rows, marks if name == "loss" else [], history.get("best_epoch"))
        for name, fields, axis in kinds
        if rows and name.replace(" ", "_") not in known - {"accuracy"}
    ]


def _by_epoch(
    name: str,
    fields: dict[str, str],
    axis: dict[str, Any],
    epochs: list[dict[str, Any]],
    marks: list[dict[str, Any]],
    best: int | None,
) -> Figure:
    rows = [
        {"epoch": epoch["epoch"], "value": epoch[field], "series": series}
        for series, field in fields.items()
        for epoch in epochs
        if epoch[field] is not None
    ]
    spec = lines(rows, "epoch", "value", series=list(fields), y_axis=axis, marks=marks, points=True)
    title = f"{name.capitalize()} by epoch"
    kept = f"; the weights of epoch {best} are kept" if best else ""
    description = f"{title}, {counted(len(epochs), 'epoch')}{kept}."
    head = ("epoch", "phase", *fields)
    cells = [
        (one["epoch"], one.get("phase", "–"), *(figures(one[field]) for field in fields.values())) for one in epochs
    ]
    return Figure(title, description, draw(spec, description), Table(head, cells))


def _values(history: dict[str, Any]) -> Table | None:
    """Return the hyperparameters, and where each came from."""
    values = history.get("values")
    if not values:
        return None
    rows = [(one["name"], one["phase"], figures(one["value"]), one["origin"], one["rule"] or "–") for one in values]
    return Table(("hyperparameter", "phase", "value", "origin", "rule"), rows)


def issues(findings: dict[str, Any]) -> list[dict[str, Any]]:
    """Return {"step", "label"} of each step at which rules found something."""
    by_step: dict[int, list[str]] = {}
    for finding in findings.get("findings", []):
        if finding["status"] == "IssuesFound" and finding["step"] is not None:
            by_step.setdefault(finding["step"], []).append(finding["rule"])
    return [{"step": step, "label": ", ".join(rules)} for step, rules in sorted(by_step.items())]


def rules(findings: list[dict[str, Any]]) -> Table | None:
    """Return what each rule found: issues and errors first."""
    ranks = {"IssuesFound": 0, "Error": 1}
    rows = [
        (
            one["rule"],
            Markup('<span class="{}">{}</span>').format(one["status"], SHOWN.get(one["status"], one["status"])),
            "–" if one["step"] is None else figures(one["step"]),
            one["tensor"] or "–",
            ", ".join(f"{name} {figures(value)}" for name, value in one["values"].items()) or "–",
            one["message"],
        )
        for one in sorted(findings, key=lambda one: ranks.get(one["status"], 2))
    ]
    return Table(("rule", "status", "step", "tensor", "values", "what it means"), rows) if rows else None


def _in_short(findings: list[dict[str, Any]]) -> str:
    found = [one for one in findings if one["status"] == "IssuesFound"]
    return f"{counted(len(findings), 'rule')} ran, {len(found)} of them found an issue."


def _curve(name: str, parts: list[dict[str, Any]], marks: list[dict[str, Any]]) -> Figure:
    rows = [
        {"step": step, "value": value, "series": part["mode"]}
        for part in parts
        for step, value in zip(part["steps"], part["values"], strict=False)
        if value is not None
    ]
    title = name.replace("_", " ").capitalize()
    series = list(dict.fromkeys(part["mode"] for part in parts))
    axis = {"format": ".0%"} if name == "accuracy" else {"format": "~g"} if name == "learning_rate" else {}
    shown = marks if name == "loss" else []
    spec = lines(rows, "step", "value", series=series, y_axis=axis, marks=shown)
    last = {row["series"]: row["value"] for row in rows}
    ends = ", ".join(f"{mode} ends at {_said(name, value)}" for mode, value in last.items()) or "no finite value"
    found = "".join(f" {mark['label']} at step {mark['step']}." for mark in shown)
    description = f"{title} by training step: {ends}.{found}"
    table = Table(
        ("step", "mode", name), [(figures(row["step"]), row["series"], figures(row["value"])) for row in rows]
    )
    return Figure(title, description, draw(spec, description), table)


def _said(name: str, value: float) -> str:
    return percent(value) if name == "accuracy" else figures(value)


def _attempts(run: Run, review: dict[str, Any]) -> Table | None:
    """Return every training of the run, where there was more than one."""
    attempts = review.get("attempts", [])
    if len(attempts) < 2:
        return None
    names = list(dict.fromkeys(name for attempt in attempts for name in attempt["hyperparameters"]))
    # What a later attempt changed, the first had from the plan.
    given = run.plan.get("requests", {}).get("train", {}).get("HyperParameters", {})
    rows = [
        (
            attempt["attempt"],
            Markup('<a href="{}">{}</a>').format(run.console.sagemaker("jobs", attempt["job"]), attempt["job"]),
            *(figures((given | attempt["hyperparameters"]).get(name)) for name in names),
            attempt["verdict"],
            attempt["reason"],
        )
        for attempt in attempts
    ]
    return Table(("attempt", "job", *names, "verdict", "reason"), rows)


def _profile(profile: dict[str, Any]) -> str | None:
    """Return the profile in a sentence; profiler-report.html has the rest."""
    if not profile:
        return None
    longest = sorted(profile["phases"], key=lambda phase: -phase["share"])[:2]
    shares = " and ".join(f"{percent(phase['share'], 0)} for {phase['name'].replace('_', ' ')}" for phase in longest)
    found = [one["rule"] for one in profile["findings"] if one["status"] == "IssuesFound"]
    said = f"{figures(parts(profile)[-1]['images_per_second'])} images a second; {shares}."
    return f"{said} {', '.join(found)} found an issue." if found else said


def parts(profile: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the networks that were trained, in order; an older profile tells of all together."""
    together = {name: profile[name] for name in ("steps", "batch_size", "images_per_second")}
    return profile.get("parts") or [{"name": "training", "first_step": 0, **together}]


def gradient_norms(findings: dict[str, Any]) -> Figure | None:
    """Return the norms of the gradients as a heat map of layers, from the input down, over steps."""
    norms = findings.get("gradient_norms", {"steps": [], "layers": []})
    rows = [
        {"step": step, "layer": layer["name"], "norm": math.log10(norm)}
        for layer in norms["layers"]
        for step, norm in zip(norms["steps"], layer["norms"], strict=False)
        if norm
    ]
    if not rows:
        return None
    layers = [layer["name"] for layer in norms["layers"]]
    spec = {
        "data": {"values": rows},
        "width": 620,
        "height": {"step": 14},
        "padding": {"left": 34, "right": 14, "top": 4, "bottom": 4},  # a browser's letters may be wider than Vega's
        "mark": {"type": "rect", "fill": "var(--series-1)"},
        "encoding": {
            "x": {"field": "step", "type": "ordinal", "axis": {"labelOverlap": True, "labelAngle": 0}},
            "y": {"field": "layer", "type": "ordinal", "sort": layers, "title": None},
            "fillOpacity": {
                "field": "norm",
                "type": "quantitative",
                "scale": {"zero": False, "range": [0.06, 1]},
                "legend": None,
            },
        },
    }
    low, high = (10 ** extreme(row["norm"] for row in rows) for extreme in (min, max))
    description = (
        f"L2 norms of the gradients of {counted(len(layers), 'layer')} over steps: {figures(low)} to {figures(high)}."
    )
    said = [
        f"{layer['name']} {figures(next((n for n in reversed(layer['norms']) if n is not None), None))}"
        for layer in norms["layers"]
    ]
    table = Table(("layer", "last norm"), [tuple(one.rsplit(" ", 1)) for one in said])
    return Figure(
        "Gradient norms by layer",
        description,
        draw(spec, description),
        table,
        wide=True,
        note="Darker is larger, on a logarithmic scale.",
    )
