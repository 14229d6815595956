"""What hooks save of a training, step by step: the one form in which rules see it, live or read from a folder."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Reductions:
    """What is kept of a tensor. Whatever was not computed or not saved is None."""

    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    absolute_mean: float | None = None
    variance: float | None = None
    l2: float | None = None
    dimensions: int | None = None


@dataclass
class SavedStep:
    """One saved step: by collection and tensor, reductions of what is large and values of what is small."""

    step: int  # of the whole training, from 0; of an evaluation, the last before it
    training: bool
    phase_start: int = 0  # the first step of the network that is being trained
    reductions: dict[str, dict[str, Reductions]] = field(default_factory=dict)
    values: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    def reduced(self, collection: str) -> dict[str, Reductions]:
        """Return what was saved of a collection in this step, by tensor."""
        return self.reductions.get(collection, {})

    def matrices(self, collection: str) -> dict[str, Reductions]:
        """Return the same without vectors: a normalisation's weights are all 1 at first, and biases are all 0."""
        return {name: one for name, one in self.reduced(collection).items() if (one.dimensions or 2) > 1}

    def scalar(self, collection: str, name: str | None = None) -> float | None:
        """Return a scalar, the first of its collection unless it is named, or None if it was not saved."""
        saved = self.values.get(collection, {})
        value = saved.get(name) if name else next(iter(saved.values()), None)
        return None if value is None else float(np.mean(value))

    def plain_loss(self) -> float | None:
        """Return the loss without smoothing or weights: losses of training and validation are comparable by it."""
        plain = self.scalar(SCALARS, PLAIN_LOSS)
        return self.scalar(LOSSES) if plain is None else plain


LOSSES, SCALARS, WEIGHTS, BIASES, GRADIENTS = "losses", "scalars", "weights", "biases", "gradients"
UPDATES, ACTIVATIONS, ACTIVITY, INPUTS = "updates", "activations", "activity", "inputs"
ACCURACY, LEARNING_RATE, PLAIN_LOSS = "scalar/accuracy", "scalar/learning_rate", "scalar/plain_loss"
LABEL_COUNTS, RIGHT_COUNTS = "inputs/label_counts", "inputs/right_counts"
CHANNEL_MEAN, CHANNEL_MIN, CHANNEL_MAX = "inputs/channel_mean", "inputs/channel_min", "inputs/channel_max"
PHASE_START, TRAINING_STEP = "scalar/phase_start", "inputs/training_step"
SEPARATION, VALID_IMAGES = "inputs/separation", "inputs/valid_images"
