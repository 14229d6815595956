"""What a classifier's answers are worth: evaluation.json's figures, with how sure each of them is.

Everything is computed from probabilities (N, C) and labels (N,), class indices: no image, no network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from calibration import softmax

BINS = 15  # of the calibration error, as in Guo et al. 2017
BOOTSTRAP_SAMPLES = 2000
Z_95_PERCENT = 1.959964  # quantile of the normal distribution for a two-sided interval at 95 %
SMALLEST_PROBABILITY = 1e-15  # of a label, so that its logarithm is finite


def measure(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Return evaluation.json's figures of the answers themselves."""
    predicted = probabilities.argmax(axis=1)
    matrix = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(matrix, (labels, predicted), 1)
    right = np.diag(matrix)
    of_class, as_class = matrix.sum(axis=1), matrix.sum(axis=0)
    f1 = _f1(right, of_class, as_class)
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    accuracy_interval, macro_f1_interval = bootstrap_intervals(predicted, labels, len(classes))
    return {
        "classes": list(classes),
        "images": len(labels),
        "majority_share": float(of_class.max() / len(labels)),
        "accuracy": float((predicted == labels).mean()),
        "accuracy_interval": accuracy_interval,
        "top5_accuracy": float((best == labels[:, None]).any(axis=1).mean()),
        "macro_f1": float(f1.mean()),
        "macro_f1_interval": macro_f1_interval,
        "per_class": [
            {
                "label": name,
                "images": int(of_class[index]),
                "predicted": int(as_class[index]),
                "precision": float(_ratio(right, as_class)[index]),
                "precision_interval": wilson_interval(right[index], as_class[index]),
                "recall": float(_ratio(right, of_class)[index]),
                "recall_interval": wilson_interval(right[index], of_class[index]),
                "f1": float(f1[index]),
            }
            for index, name in enumerate(classes)
        ],
        "confusion_matrix": matrix.tolist(),
    }


def measure_confidence(
    logits: np.ndarray, labels: np.ndarray, temperature: float, confidence_threshold: float
) -> dict[str, Any]:
    """Return evaluation.json's figures of what the answers' confidence is worth, before and after the temperature."""
    before, after = softmax(logits), softmax(logits / temperature)
    kept = after.max(axis=1) >= confidence_threshold
    right = after.argmax(axis=1) == labels
    calibration = {
        name: {
            "error": calibration_error(probabilities, labels),
            "log_loss": log_loss(probabilities, labels),
            "bins": reliability(probabilities, labels),
        }
        for name, probabilities in (("before", before), ("after", after))
    }
    return {
        "calibration_error": calibration["after"]["error"],
        "calibration": {"temperature": temperature, **calibration},
        "answered": {
            "confidence_threshold": confidence_threshold,
            "images": int(kept.sum()),
            "accuracy": float(right[kept].mean()) if kept.any() else None,
        },
    }


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> list[dict[str, Any]]:
    """Return the reliability diagram: 15 bins of equal width over the confidence (Guo et al. 2017)."""
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    found = []
    for number in range(BINS):
        inside = bins == number
        images = int(inside.sum())
        found.append(
            {
                "low": number / BINS,
                "high": (number + 1) / BINS,
                "images": images,
                "confidence": min(float(confidence[inside].mean()), 1.0) if images else None,
                "accuracy": float(right[inside].mean()) if images else None,
            }
        )
    return found


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the expected calibration error: the diagram's gaps, by the images that have them (Guo et al. 2017)."""
    bins = [one for one in reliability(probabilities, labels) if one["images"]]
    return float(sum(abs(one["accuracy"] - one["confidence"]) * one["images"] for one in bins) / len(labels))


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean negative logarithm of the labels' probabilities."""
    of_labels = probabilities[np.arange(len(labels)), labels]
    return max(0.0, float(-np.log(np.maximum(of_labels, SMALLEST_PROBABILITY)).mean()))


def bootstrap_intervals(predicted: np.ndarray, labels: np.ndarray, classes: int) -> tuple[list[float], list[float]]:
    """Return the 95 % percentile intervals of accuracy and macro F1 (Efron and Tibshirani 1993, chapter 13).

    The same images give the same intervals. A sample's macro F1 is over the classes that occur in it.
    """
    generator = np.random.default_rng(0)
    accuracies, macro_f1s = np.empty(BOOTSTRAP_SAMPLES), np.empty(BOOTSTRAP_SAMPLES)
    is_right = predicted == labels
    for sample in range(BOOTSTRAP_SAMPLES):
        drawn = generator.integers(0, len(labels), len(labels))
        of_class = np.bincount(labels[drawn], minlength=classes)
        as_class = np.bincount(predicted[drawn], minlength=classes)
        right = np.bincount(labels[drawn][is_right[drawn]], minlength=classes)
        accuracies[sample] = right.sum() / len(labels)
        macro_f1s[sample] = _f1(right, of_class, as_class)[of_class + as_class > 0].mean()
    return _percentiles(accuracies), _percentiles(macro_f1s)


def wilson_interval(hits: int, images: int) -> list[float]:
    """Return the 95 % score interval of a share (Wilson 1927, JASA 22, 209-212); 0 to 1 of no images."""
    if not images:
        return [0.0, 1.0]
    share, z2 = float(hits) / float(images), Z_95_PERCENT**2 / float(images)
    centre = share + z2 / 2
    margin = Z_95_PERCENT * math.sqrt((share * (1 - share) + z2 / 4) / images)
    return [max(0.0, (centre - margin) / (1 + z2)), min(1.0, (centre + margin) / (1 + z2))]


def _f1(right: np.ndarray, of_class: np.ndarray, as_class: np.ndarray) -> np.ndarray:
    """Return the harmonic means of precision and recall; 0 where a class neither occurs nor is answered."""
    return _ratio(2 * right, of_class + as_class)


def _percentiles(values: np.ndarray) -> list[float]:
    return [float(value) for value in np.percentile(values, (2.5, 97.5))]


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)
