"""Which variant serves: what its answers are worth beside float32's, whether it may serve, and which one does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from artifacts import ArtifactError

SIGNIFICANCE = 0.05
LEAST_AGREEMENT = 0.995
BINS = 15


def choose(rows: Sequence[dict[str, Any]], requested: str, max_loss: float) -> tuple[str, str]:
    """Return the variant that serves, and why. rows: variants.json's. Raises ArtifactError if it cannot be had.

    The fastest takes the least processor time an image: what else the machine does moves that less than images a
    second, so that the next run chooses alike.
    """
    by_name = {row["variant"]: row for row in rows}
    if requested != "fastest":
        row = by_name[requested]
        if row["measured"] is None:
            raise ArtifactError(f"serving.variant asks for {requested}, which cannot be had: {row['reason']}")
        return requested, f"{requested} was asked for by name. {row['reason']}"
    measured = {row["variant"]: row["measured"] for row in rows if row["accepted"]}
    best = min(measured, key=lambda name: measured[name]["core_ms"])
    least, float32 = measured[best]["core_ms"], measured["float32"]["core_ms"]
    return best, (
        f"{best} is the fastest that loses at most {100 * max_loss:g} points of accuracy: {least:.1f} ms of a core an "
        f"image, {float32 / least:.1f} times as fast as float32 with {float32:.1f}."
    )


def judge(logits: np.ndarray, float32: np.ndarray, labels: np.ndarray, temperature: float) -> dict[str, Any]:
    """Return what a variant's answers, (N, C), are worth beside float32's."""
    predicted, reference = logits.argmax(axis=1), float32.argmax(axis=1)
    wins = int(((predicted == labels) & (reference != labels)).sum())
    losses = int(((predicted != labels) & (reference == labels)).sum())
    return {
        "accuracy": float((predicted == labels).mean()),
        "agreement": float((predicted == reference).mean()),
        "wins": wins,
        "losses": losses,
        "p_value": mcnemar(wins, losses),
        "calibration_error": calibration_error(logits / temperature, labels),
        "largest_difference": float(np.abs(logits - float32).max()),
    }


def accept(judged: dict[str, Any], max_loss: float) -> tuple[bool, str]:
    """Return whether a variant may serve, and why, in a sentence."""
    images, lost = judged["wins"] + judged["losses"], judged["losses"] - judged["wins"]
    said = (
        f"{judged['losses']} images lost and {judged['wins']} won against float32 (p = {judged['p_value']:.2g}), "
        f"{100 * judged['agreement']:.2f} % of the labels are float32's"
    )
    if judged["loss"] > max_loss:
        return (
            False,
            f"It loses {100 * judged['loss']:.2f} points of accuracy, at most {100 * max_loss:g} may be: {said}.",
        )
    if images and lost > 0 and judged["p_value"] < SIGNIFICANCE:
        return False, f"It is significantly worse: {said}."
    if judged["agreement"] < LEAST_AGREEMENT:
        return False, f"Too few labels are float32's, at least {100 * LEAST_AGREEMENT:g} % must be: {said}."
    return True, f"It may serve: {said}."


def mcnemar(wins: int, losses: int) -> float:
    """Return how likely at least so many losses are among the images that differ, if wins are as likely: exact."""
    differ = wins + losses
    return sum(math.comb(differ, k) for k in range(losses, differ + 1)) / 2**differ


def calibration_error(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the expected calibration error: 15 bins of equal width over the confidence (Guo et al. 2017)."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    confidence = (exponentials / exponentials.sum(axis=1, keepdims=True)).max(axis=1)
    right = logits.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    return float(
        sum(abs(right[bins == b].mean() - confidence[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins))
    )
