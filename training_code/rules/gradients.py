"""Rules that look for numbers that explode or vanish."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from findings import Finding
from saved import GRADIENTS, WEIGHTS, Reductions, SavedStep

from rules.rule import ReviewRule

LOWER_RATE = "lower the learning rate, and look for images that normalisation turns into infinities"


class ExplodingTensor(ReviewRule):
    """A tensor holds NaN or an infinity. only_nan: leave infinities alone."""

    needs = "tensors"

    def __init__(self, trial: Any, only_nan: bool = False):
        super().__init__(trial, only_nan=only_nan)
        self._only_nan = only_nan

    def look(self, saved: SavedStep) -> None:
        self.seen = True
        for collection in saved.reductions.values():
            for name, one in collection.items():
                self._judge(saved.step, name, _seen(one))
        for small in saved.values.values():
            for name, array in small.items():
                if not np.isfinite(array).all():
                    self._judge(saved.step, name, array.ravel().tolist())

    def verdict(self) -> Finding:
        return self.nothing("No tensor holds NaN or an infinity.")

    def _judge(self, step: int, name: str, values: Iterable[float]) -> None:
        for value in values:
            if not math.isfinite(value) and not (self._only_nan and math.isinf(value)):
                message = f"{name} holds {value} at step {step}: {LOWER_RATE}."
                self.settle(self.issue(message, step, name, value=value))


class VanishingGradient(ReviewRule):
    """The mean absolute gradient of a layer's weight is below threshold, or drops to zero while another's does not.

    AWS's rule fires at the first such step; a training that has converged has small gradients at its end, so this one
    wants them at every saved step, of which there must be two. Zero, or none at all: at the last three saved steps, one
    of which may show a layer nothing; no schedule of the learning rate makes a gradient so, as it makes updates.
    """

    DEAD = 3
    needs = "gradients of a weight twice"

    def __init__(self, trial: Any, threshold: float = 1e-7):
        super().__init__(trial, threshold=threshold)
        self._threshold = threshold
        self._largest: dict[str, tuple[int, float]] = {}
        self._zero: dict[str, list[int]] = {}

    def look(self, saved: SavedStep) -> None:
        means = {name: one.absolute_mean for name, one in saved.reduced(GRADIENTS).items()}
        sizes = {name: mean if math.isfinite(mean) else math.inf for name, mean in means.items() if mean is not None}
        for name, size in sizes.items():
            if name.endswith("weight"):
                steps, largest = self._largest.get(name, (0, 0.0))
                self._largest[name] = steps + 1, max(largest, size)
                if steps:
                    self.seen = True
        if max(sizes.values(), default=0.0) >= self._threshold:
            for name in self._largest:
                if sizes.get(name, 0.0) > 0:
                    self._zero.pop(name, None)
                elif name in sizes or name.removeprefix("gradient/") in saved.reduced(WEIGHTS):
                    self._zero.setdefault(name, []).append(saved.step)

    def verdict(self) -> Finding:
        return self._vanished() or self._died() or self.nothing("Every layer's gradients kept their size.")

    def _vanished(self) -> Finding | None:
        vanished = [
            (largest, name)
            for name, (steps, largest) in self._largest.items()
            if steps > 1 and largest < self._threshold
        ]
        if not vanished:
            return None
        largest, name = min(vanished)
        message = (
            f"The gradients of {len(vanished)} of {len(self._largest)} weights stayed below {self._threshold:g}, "
            f"smallest {name}: those layers do not learn. Use another initialisation, fewer layers, or a normalisation."
        )
        return self.issue(message, None, name, largest_mean=largest)

    def _died(self) -> Finding | None:
        dead = [(steps[0], name) for name, steps in self._zero.items() if len(steps) >= self.DEAD]
        if not dead:
            return None
        step, name = min(dead)
        message = (
            f"The gradients of {len(dead)} of {len(self._largest)} weights are zero, of {name} since step {step}, and "
            "others are not: those layers learn nothing any more. Lower the learning rate if units of a layer after "
            "them have died, or look for what keeps the loss from them."
        )
        return self.issue(message, step, name, zero_steps=len(self._zero[name]))


def _seen(one: Reductions) -> list[float]:
    """Return what shows a NaN or an infinity anywhere in a tensor."""
    shown = [one.minimum, one.maximum] if one.minimum is not None else [one.l2, one.absolute_mean, one.mean]
    return [value for value in shown if value is not None]
