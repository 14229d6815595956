"""Calibration: what a network's confidence is worth, settled on the validation split and carried in model.json.

The temperature makes confidences mean what they say: of the answers given with 0.8, four of five should be right (Guo
et al. 2017, On Calibration of Modern Neural Networks). The threshold says below which confidence an answer is better
not given: it is the lowest confidence at which at least 95 % of the validation answers that are kept are right
(selective classification: Geifman and El-Yaniv 2017, Selective Classification for Deep Neural Networks).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TEMPERATURES = (0.05, 20.0)
TARGET_PRECISION = 0.95
SMALLEST_SHARE_KEPT = 0.1  # of the validation images: the precision of fewer says little
HALVINGS = 60


@dataclass(frozen=True)
class Calibration:
    """What model.json says of confidence, and what it comes to on the validation split."""

    temperature: float
    confidence_threshold: float
    share_kept: float
    precision_kept: float


def calibrate(logits: np.ndarray, labels: np.ndarray) -> Calibration:
    """Settle temperature and threshold. logits: (N, C); labels: (N,), class indices."""
    logits = logits.astype(np.float64)
    temperature = fit_temperature(logits, labels)
    probabilities = softmax(logits / temperature)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    threshold = choose_threshold(confidence, right)
    kept = confidence >= threshold
    return Calibration(temperature, threshold, float(kept.mean()), float(right[kept].mean()))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature, 0.05 to 20, at which softmax(logits / temperature) has the least log loss.

    The loss is convex in 1 / temperature, so halving the interval by the sign of its slope finds the only minimum. Its
    targets are Platt's (1999, Probabilistic Outputs for Support Vector Machines), (N + 1) / (N + 2) for the label and
    the rest for the other classes: a few images that are all answered right do not make the network infallible.
    """
    images, classes = logits.shape
    others = 1 / (images + 2) / (classes - 1)
    targets = np.full(logits.shape, others)
    targets[np.arange(images), labels] = (images + 1) / (images + 2)
    low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        slope = ((softmax(middle * logits) - targets) * logits).sum()
        low, high = (middle, high) if slope < 0 else (low, middle)
    return float(2 / (low + high))


def choose_threshold(confidence: np.ndarray, right: np.ndarray) -> float:
    """Return the lowest confidence at which at least TARGET_PRECISION of the answers kept are right.

    Only confidences that occur come into question, and such as keep a tenth of the images; where none reaches the
    target, the one with the highest precision. confidence: (N,); right: (N,), whether the answer was.
    """
    order = np.argsort(-confidence, kind="stable")
    precision = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    ordered = confidence[order]
    whole = np.append(ordered[1:] < ordered[:-1], True)  # equal confidences are kept together
    enough = np.arange(1, len(order) + 1) >= SMALLEST_SHARE_KEPT * len(order)
    candidates = np.flatnonzero(whole & enough)
    reached = candidates[precision[candidates] >= TARGET_PRECISION]
    if len(reached):
        return float(ordered[reached[-1]])
    best = precision[candidates].max()
    return float(ordered[candidates[precision[candidates] == best][-1]])


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities, (N, C), rows sum to 1."""
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)
