"""The page's charts: the learning curves of the final trainings, and the objective over the trials."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from kelpie import charts
from kelpie.execution import Trial
from kelpie.progress import Epoch, Progress, is_final_training

CURVES = {"Loss": ("train_loss", "valid_loss"), "Accuracy": ("train_accuracy", "valid_accuracy")}


def curves(progress: Progress) -> list[tuple[str, Markup, list[Epoch]]]:
    """Return title, drawing and numbers of each curve; none before the first epoch has ended."""
    drawn = []
    for job, epochs in sorted(progress.epochs.items()):
        if is_final_training(job, progress.run) and epochs:
            drawn += [(title, _curve(title, names, epochs), epochs) for title, names in CURVES.items()]
    return drawn


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
