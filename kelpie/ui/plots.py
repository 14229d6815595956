"""The page's charts: the learning curves of the final trainings, and the objective over the trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from kelpie import charts
from kelpie.execution import Trial
from kelpie.progress import Epoch, Progress, is_final_training

CURVES = {"Loss": ("train_loss", "valid_loss"), "Accuracy": ("train_accuracy", "valid_accuracy")}


@dataclass(frozen=True)
class Training:
    curves: list[tuple[str, Markup]]
    """Title and drawing of each."""
    epochs: Sequence[Epoch]
    again: str | None
    """Why the model was trained again after this training, and what changed."""


def trainings(progress: Progress) -> list[Training]:
    """Return the final trainings in their order; one has no curves before its first epoch has ended."""
    epochs = {job: found for job, found in progress.epochs.items() if is_final_training(job, progress.run)}
    return [
        Training(_curves(epochs.get(job, [])), epochs.get(job, []), progress.again.get(job))
        for job in sorted({*epochs, *progress.again})
    ]


def _curves(epochs: Sequence[Epoch]) -> list[tuple[str, Markup]]:
    return [(title, _curve(title, names, epochs)) for title, names in CURVES.items()] if epochs else []


def _curve(title: str, names: Sequence[str], epochs: Sequence[Epoch]) -> Markup:
    series = [name.replace("_", " ") for name in names]
    rows = [
        {"epoch": epoch.number, title: epoch.values[name], "series": name.replace("_", " ")}
        for epoch in epochs
        for name in names
        if name in epoch.values
    ]
    last = ", ".join(
        f"{name.replace('_', ' ')} {epochs[-1].values[name]:g}" for name in names if name in epochs[-1].values
    )
    described = f"{title} by epoch; after epoch {epochs[-1].number} of {epochs[-1].of}: {last}"
    return charts.draw(charts.lines(rows, "epoch", title, series=series, points=True), described)


def trials(found: Sequence[Trial]) -> Markup | None:
    """Return the objective of each trial and the best so far, or None as long as there are not two to compare."""
    scores = [(number, trial.objective) for number, trial in enumerate(found, start=1) if trial.objective is not None]
    if len(scores) < 2:
        return None
    best = float("-inf")
    rows = []
    for number, score in scores:
        best = max(best, score)
        rows += [
            {"trial": number, "objective": score, "series": "objective"},
            {"trial": number, "objective": best, "series": "best so far"},
        ]
    described = f"Objective of {len(scores)} trials; the best is {best:.4f}"
    spec = charts.lines(rows, "trial", "objective", series=["objective", "best so far"], points=True)
    return charts.draw(spec, described)
