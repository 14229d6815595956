"""Temperature and threshold, on logits whose right answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from calibration import calibrate, choose_threshold, fit_temperature, softmax


def drawn(images: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from softmax(logits / temperature)."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 3, (images, 5))
    chances = softmax(logits / temperature).cumsum(axis=1)
    return logits, (generator.random((images, 1)) > chances).sum(axis=1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_with_is_found(temperature: float) -> None:
    assert fit_temperature(*drawn(20_000, temperature)) == pytest.approx(temperature, rel=0.04)


def test_no_other_temperature_has_a_lower_loss() -> None:
    logits, labels = drawn(2_000, 1.7)
    fitted = fit_temperature(logits, labels)

    def loss(temperature: float) -> float:
        return float(-np.log(softmax(logits / temperature)[np.arange(len(labels)), labels]).mean())

    assert loss(fitted) <= min(loss(fitted * factor) for factor in (0.9, 0.97, 1.03, 1.1)) < loss(1.0)


def test_a_few_images_that_are_all_right_make_no_certainty() -> None:
    logits = np.eye(4) * 2.0
    confidence = softmax(logits / fit_temperature(logits, np.arange(4))).max()
    assert confidence == pytest.approx(5 / 6, abs=1e-6)  # Platt's target of four images


def test_logits_that_say_nothing_keep_a_temperature_within_its_bounds() -> None:
    assert 0.05 <= fit_temperature(np.zeros((6, 3)), np.array([0, 1, 2, 0, 1, 2])) <= 20
    assert fit_temperature(-np.eye(3) * 9, np.arange(3)) == pytest.approx(20)


def test_the_threshold_is_the_lowest_that_reaches_the_precision() -> None:
    confidence = np.linspace(0.01, 1, 100)
    right = confidence > 0.305
    assert choose_threshold(confidence, right) == pytest.approx(0.28)  # 70 right of 73; one more: 70 of 74


def test_the_lowest_confidence_seen_is_the_threshold_of_a_network_that_is_right() -> None:
    assert choose_threshold(np.array([0.6, 0.9, 0.7]), np.array([True, True, True])) == 0.6


def test_equal_confidences_are_kept_together() -> None:
    confidence, right = np.array([0.9] * 10 + [0.8] * 10), np.array([True] * 19 + [False])
    assert choose_threshold(confidence, right) == 0.8
    assert choose_threshold(confidence[::-1], right) == 0.8
    assert choose_threshold(confidence, ~right) == 0.8  # of 0 right of 10 and 1 right of 20 the better


def test_a_threshold_that_keeps_next_to_nothing_is_not_chosen() -> None:
    confidence, right = np.linspace(0.01, 1, 100), np.zeros(100, dtype=bool)
    right[-3:] = right[50:60] = True
    threshold = choose_threshold(confidence, right)
    assert (confidence >= threshold).sum() >= 10


def test_calibrate_says_what_it_comes_to() -> None:
    found = calibrate(*drawn(5_000, 0.8))
    assert found.precision_kept >= 0.95
    assert 0.1 <= found.share_kept < 1
    assert 0 < found.confidence_threshold < 1
