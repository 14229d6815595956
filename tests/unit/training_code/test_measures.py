"""An evaluation's figures, on answers that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from calibration import softmax
from measures import bootstrap_intervals, calibration_error, log_loss, measure, measure_confidence, wilson_interval

LABELS = np.array([0, 0, 1, 1])
PROBABILITIES = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])


def test_figures_of_an_evaluation() -> None:
    figures = measure(PROBABILITIES, LABELS, ["a", "b"])

    assert figures["confusion_matrix"] == [[1, 1], [0, 2]]
    assert (figures["accuracy"], figures["top5_accuracy"], figures["majority_share"]) == (0.75, 1.0, 0.5)
    assert figures["per_class"][0] == {
        "label": "a",
        "images": 2,
        "predicted": 1,
        "precision": 1.0,
        "precision_interval": pytest.approx([0.2065, 1.0], abs=1e-4),
        "recall": 0.5,
        "recall_interval": pytest.approx([0.0945, 0.9055], abs=1e-4),
        "f1": pytest.approx(2 / 3),
    }
    assert figures["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 2)


def test_a_class_that_is_never_answered_has_figures_too() -> None:
    never = measure(np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0]]), np.array([0, 1]), ["a", "b", "c"])["per_class"]
    assert (never[1]["precision"], never[1]["precision_interval"], never[1]["f1"]) == (0.0, [0.0, 1.0], 0.0)
    assert (never[2]["images"], never[2]["recall_interval"]) == (0, [0.0, 1.0])


@pytest.mark.parametrize(
    ("hits", "images", "expected"), [(0, 10, (0.0, 0.2775)), (10, 10, (0.7225, 1.0)), (81, 263, (0.2553, 0.3662))]
)
def test_intervals_are_wilsons(hits: int, images: int, expected: tuple[float, float]) -> None:
    assert wilson_interval(hits, images) == pytest.approx(expected, abs=1e-4)


def test_bootstrap_intervals_hold_what_the_normal_approximation_says() -> None:
    labels = np.arange(400) % 4
    predicted = np.where(np.arange(400) < 320, labels, (labels + 1) % 4)

    accuracy, macro_f1 = bootstrap_intervals(predicted, labels, 4)

    margin = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert accuracy == pytest.approx([0.8 - margin, 0.8 + margin], abs=0.006)
    assert macro_f1 == pytest.approx(accuracy, abs=0.02)
    assert bootstrap_intervals(predicted, labels, 4) == (accuracy, macro_f1)


def test_an_overconfident_network_is_mended_by_its_temperature() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (4000, 3))
    labels = (generator.random((4000, 1)) > softmax(logits).cumsum(axis=1)).sum(axis=1)

    figures = measure_confidence(logits * 3, labels, temperature=3.0, confidence_threshold=0.9)

    calibration = figures["calibration"]
    assert calibration["before"]["error"] > 0.1 > 0.03 > calibration["after"]["error"]
    assert calibration["before"]["log_loss"] > calibration["after"]["log_loss"]
    assert figures["calibration_error"] == calibration["after"]["error"]
    for name in ("before", "after"):
        assert sum(one["images"] for one in calibration[name]["bins"]) == 4000
    kept = softmax(logits).max(axis=1) >= 0.9
    assert figures["answered"] == {
        "confidence_threshold": 0.9,
        "images": int(kept.sum()),
        "accuracy": (logits.argmax(axis=1) == labels)[kept].mean(),
    }


def test_a_threshold_that_nothing_reaches_leaves_no_accuracy() -> None:
    assert measure_confidence(np.zeros((2, 2)), np.array([0, 1]), 1.0, 0.9)["answered"]["accuracy"] is None


def test_calibration_error_of_answers_that_mean_what_they_say_is_none() -> None:
    assert calibration_error(np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1])) == 0
    assert calibration_error(np.array([[1.0, 0.0]] * 4), np.array([0, 0, 1, 1])) == 0.5


def test_certainty_that_is_wrong_has_a_finite_loss() -> None:
    certain = softmax(np.array([[1e4, 0.0]]))
    assert certain.tolist() == [[1.0, 0.0]]
    assert log_loss(certain, np.array([0])) == 0
    assert log_loss(certain, np.array([1])) == pytest.approx(34.5, abs=0.1)
