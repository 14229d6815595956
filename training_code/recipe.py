"""What a training does in which order, and where each value comes from. Pure: no torch, no files.

A final training of a pretrained network is LP-FT (Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features): the
head first, on frozen features, with exactly what a trial had tuned; then, from there, as much of the network as is
unfrozen, with rates that follow from the tuned ones by the rules below. docs/experiments.md says what each of them
brought on photographs, and what was tried and left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

FINE_TUNE_SHARE = 0.1  # of the tuned rate: after the head has learnt, nothing should move as fast again
FINE_TUNE_RATES = (3e-4, 5e-4)
FINE_TUNE_BATCH = 32
STAGE_DECAY = 0.7  # of the learning rate, from each stage to the one before it (Howard and Ruder 2018, ULMFiT)
LABEL_SMOOTHING = 0.1
AVERAGING = 0.99
START_SHARE = 0.5
FULL_SIZE_SHARE = 0.4  # of the epochs, the last ones
SIZES = (0.72, 0.86)  # of the side that serving sees, in the first epochs and in the last (Touvron et al. 2019, FixRes)
LEAST_SCHEDULED_PX = 128
SIZE_STEP_PX = 32


@dataclass(frozen=True)
class Tuned:
    """What the tuner searches."""

    learning_rate: float
    eps: float
    weight_decay: float
    batch_size: int


@dataclass(frozen=True)
class Phase:
    """A part of a training: one schedule of the learning rate from beginning to end."""

    name: str
    learning_rate: float
    eps: float
    weight_decay: float
    batch_size: int
    epochs: int
    stage_decay: float = 1.0
    label_smoothing: float = 0.0
    averaging: float = 0.0
    start_share: float = 0.0
    """Of the weights that are validated and kept: how much of them is the network that the phase began with."""
    keep_statistics: bool = False
    """Of batch norms: those of the pretraining, not of small batches."""
    patience: int = 0
    sizes_px: tuple[int, ...] = ()
    rules: Mapping[str, str] = field(default_factory=dict)

    def size_px(self, epoch: int) -> int | None:
        """Return the side of the training images in an epoch of this phase, from 0; None for features."""
        return self.sizes_px[epoch] if self.sizes_px else None

    def epochs_left(self, epoch: int) -> float:
        """Return what follows an epoch of this phase, from 0, in such epochs: larger images take longer by area."""
        if not self.sizes_px:
            return self.epochs - epoch - 1
        return sum(side**2 for side in self.sizes_px[epoch + 1 :]) / self.sizes_px[epoch] ** 2


def head_phase(tuned: Tuned, epochs: int, patience: int = 0) -> Phase:
    """Return the phase on frozen features: a trial, and what a final training begins with."""
    return Phase(
        "head", tuned.learning_rate, tuned.eps, tuned.weight_decay, tuned.batch_size, epochs, patience=patience
    )


def whole_phase(tuned: Tuned, epochs: int, patience: int, image_size_px: int, pretrained: bool) -> Phase:
    """Return the one phase of mode full, in trials and at the end: the tuned values, unchanged."""
    return Phase(
        "fine_tune",
        tuned.learning_rate,
        tuned.eps,
        tuned.weight_decay,
        tuned.batch_size,
        epochs,
        stage_decay=STAGE_DECAY if pretrained else 1.0,
        label_smoothing=LABEL_SMOOTHING if pretrained else 0.0,
        averaging=AVERAGING if pretrained else 0.0,
        keep_statistics=pretrained,
        patience=patience,
        sizes_px=(image_size_px,) * epochs,
    )


def fine_tune_phase(tuned: Tuned, epochs: int, patience: int, image_size_px: int) -> Phase:
    """Return the phase that follows the head's."""
    low, high = FINE_TUNE_RATES
    return Phase(
        "fine_tune",
        min(max(tuned.learning_rate * FINE_TUNE_SHARE, low), high),
        tuned.eps,
        tuned.weight_decay,
        min(tuned.batch_size, FINE_TUNE_BATCH),
        epochs,
        stage_decay=STAGE_DECAY,
        label_smoothing=LABEL_SMOOTHING,
        averaging=AVERAGING,
        start_share=START_SHARE,
        keep_statistics=True,
        patience=patience,
        sizes_px=sizes(epochs, image_size_px),
        rules={
            "learning_rate": f"{FINE_TUNE_SHARE} of the tuned one, between {low} and {high}",
            "batch_size": f"the tuned one, at most {FINE_TUNE_BATCH}",
        },
    )


def scaled(phase: Phase, scale: float) -> Phase:
    """Return a phase at so many times its learning rate, whatever bounds that was held to: another try at it."""
    if scale == 1:
        return phase
    rule = f"{phase.rules.get('learning_rate', 'learning_rate')}, times learning_rate_scale {scale:g}"
    return replace(phase, learning_rate=phase.learning_rate * scale, rules={**phase.rules, "learning_rate": rule})


def sizes(epochs: int, image_size_px: int) -> tuple[int, ...]:
    """Return the side of the training images of each epoch: smaller first, and never quite what serving sees.

    What is cut out of a training image is enlarged, so that things look larger there than they will when it serves.
    """
    if image_size_px < LEAST_SCHEDULED_PX:
        return (image_size_px,) * epochs
    small, large = (max(SIZE_STEP_PX, round(image_size_px * share / SIZE_STEP_PX) * SIZE_STEP_PX) for share in SIZES)
    last = round(epochs * FULL_SIZE_SHARE)
    return (small,) * (epochs - last) + (large,) * last


def class_weights(images: Sequence[int], largest_ratio: float) -> list[float] | None:
    """Return each class's weight in the loss, by its training images; None where they are balanced enough.

    The square root of the inverse frequency, with a mean of 1 over the images: full weights would let the rarest
    class's few images, and their mistakes, rule the training.
    """
    if max(images) <= largest_ratio * min(images):
        return None
    roots = [(sum(images) / number) ** 0.5 for number in images]
    mean = sum(root * number for root, number in zip(roots, images, strict=True)) / sum(images)
    return [root / mean for root in roots]


def values_of(phases: Sequence[Phase], tuned_names: Sequence[str]) -> list[dict[str, Any]]:
    """Return training_history.json's values: what each phase used, and where it came from."""
    described = []
    for phase in phases:
        for name in ("learning_rate", "eps", "weight_decay", "batch_size", "epochs"):
            rule = phase.rules.get(name)
            origin = "derived" if rule else "tuned" if name in tuned_names else "given"
            described.append(
                {"phase": phase.name, "name": name, "value": getattr(phase, name), "origin": origin, "rule": rule}
            )
    return described
