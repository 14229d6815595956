"""What follows from the tuned values."""

from __future__ import annotations

import numpy as np
import pytest
from augmentation import chance_of, crop_box, cut, gentle, mirrored
from batches import augmentation_of
from PIL import Image
from recipe import Tuned, class_weights, fine_tune_phase, head_phase, scaled, sizes, values_of

PREPROCESSING = {"image_size_px": 24, "mean": [0.5] * 3}


@pytest.mark.parametrize(("tuned", "derived"), [(4e-3, 4e-4), (1e-5, 3e-4), (0.1, 5e-4)])
def test_the_rate_of_fine_tuning_is_a_tenth_of_the_heads_within_bounds(tuned: float, derived: float) -> None:
    phase = fine_tune_phase(Tuned(tuned, 1e-9, 0.03, 128), 10, 0, 224)

    assert phase.learning_rate == pytest.approx(derived)
    assert (phase.eps, phase.weight_decay, phase.batch_size) == (1e-9, 0.03, 32)
    assert set(phase.rules) == {"learning_rate", "batch_size"}


def test_a_scale_multiplies_the_rate_after_its_bounds_and_is_told() -> None:
    tuned = Tuned(4e-3, 1e-9, 0.03, 128)
    head, fine_tune = (scaled(one, 0.1) for one in (head_phase(tuned, 5), fine_tune_phase(tuned, 10, 0, 224)))

    assert (head.learning_rate, fine_tune.learning_rate) == pytest.approx((4e-4, 4e-5))
    rates = [one for one in values_of([head, fine_tune], ["learning_rate"]) if one["name"] == "learning_rate"]
    assert [(one["origin"], one["rule"]) for one in rates] == [
        ("derived", "learning_rate, times learning_rate_scale 0.1"),
        ("derived", "0.1 of the tuned one, between 0.0003 and 0.0005, times learning_rate_scale 0.1"),
    ]
    assert fine_tune.rules["batch_size"] == "the tuned one, at most 32"
    assert values_of([scaled(head_phase(tuned, 5), 1)], ["learning_rate"])[0]["origin"] == "tuned"


def test_training_images_grow_and_stay_below_what_serving_sees() -> None:
    assert sizes(10, 224) == (160,) * 6 + (192,) * 4
    assert sizes(3, 24) == (24, 24, 24)


def test_what_is_left_of_a_phase_is_told_by_the_images_area() -> None:
    phase = fine_tune_phase(Tuned(1e-3, 1e-9, 0.03, 128), 5, 0, 256)

    assert phase.sizes_px == (192, 192, 192, 224, 224)
    assert phase.epochs_left(1) == pytest.approx(1 + 2 * (224 / 192) ** 2)
    assert phase.epochs_left(4) == 0
    assert head_phase(Tuned(1e-3, 1e-9, 0.03, 128), 5).epochs_left(1) == 3


def test_rare_classes_weigh_more_and_the_mean_stays() -> None:
    weights = class_weights([900, 100], 2.0)

    assert weights is not None
    assert weights[1] == pytest.approx(3 * weights[0])
    assert (900 * weights[0] + 100 * weights[1]) / 1000 == pytest.approx(1)
    assert class_weights([200, 100], 2.0) is None


@pytest.mark.parametrize("name", ["gentle", "cut"])
def test_an_image_of_an_epoch_is_the_same_whenever_it_is_made(name: str) -> None:
    augment = augmentation_of(name, True, 3, PREPROCESSING)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)

    first = [augment(pixels, 24, epoch, 7) for epoch in range(20)]

    for epoch in (5, 0, 19):
        np.testing.assert_array_equal(augment(pixels, 24, epoch, 7), first[epoch])
    assert {square.shape for square in first} == {(24, 24, 3)}
    assert len({square.tobytes() for square in first}) == 20


def test_augmentation_never_mirrors_by_itself() -> None:
    left = np.zeros((16, 16, 3), np.uint8)
    left[:, :5] = 255
    squares = [np.array(gentle(Image.fromarray(left), 16, chance_of(0, 0, index), (0, 0, 0))) for index in range(64)]

    assert all(square[:, :8].mean() > square[:, 8:].mean() for square in squares)
    assert (mirrored(left)[:, -5:] == 255).all()


def test_a_cut_out_lies_within_the_picture() -> None:
    for index in range(200):
        left, top, right, bottom = crop_box(40, 100, chance_of(0, 0, index))
        assert 0 <= left < right <= 40
        assert 0 <= top < bottom <= 100
    assert crop_box(10, 1000, chance_of(0, 0, 0)) == (0, 495, 10, 505)
    picture = Image.new("RGB", (10, 1000))
    assert cut(picture, 24, chance_of(0, 0, 1)).size == (24, 24)
