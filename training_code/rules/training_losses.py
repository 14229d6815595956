"""The training losses of a phase, as rules compare them: means of several, which noise alone seldom moves as far."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from saved import ACCURACY, LOSSES, SCALARS, SavedStep

SURE = 2.0
"""Standard errors of their difference by which a mean must be lower: noise comes to that in one of forty trainings."""
SURE_OF_SEVERAL = 3.0
"""The same where the lowest of several is chosen, and where nothing else would tell."""


class TrainingLosses:
    """Those of the saved steps so far, of the loss that is trained on."""

    def __init__(self) -> None:
        self.values: list[float] = []
        self._accuracies: list[float] = []
        self._steps: list[int] = []
        self._phase_start = 0

    def add(self, saved: SavedStep) -> bool:
        """Take in a saved step; return whether it has a training loss."""
        loss, accuracy = saved.scalar(LOSSES), saved.scalar(SCALARS, ACCURACY)
        if not saved.training or loss is None:
            return False
        self.values.append(loss)
        self._accuracies.append(math.nan if accuracy is None else accuracy)
        self._steps.append(saved.step)
        self._phase_start = saved.phase_start
        return True

    @property
    def latest_step(self) -> int:
        """Step of the last one."""
        return self._steps[-1]

    @property
    def go_on(self) -> bool:
        """Whether they are of a later phase, which goes on from what an earlier one has learned."""
        return self._phase_start > 0

    @property
    def begin_late(self) -> bool:
        """Whether the first ones are missing: a training that goes on from a checkpoint is shown from there on."""
        first, second = self._steps[:2]
        return first - self._phase_start > second - first

    def last_third(self, at_least: int) -> list[float]:
        """Return the last ones, so many at least."""
        return self.values[-max(at_least, len(self.values) // 3) :]

    def before_latest(self, length: int) -> list[list[float]]:
        """Return what comes before the last so many, in pieces as long; what is left over at the beginning is not."""
        ends = range(len(self.values) - length, length - 1, -length)
        return [self.values[end - length : end] for end in ends]

    def accuracy(self, latest: int) -> float:
        """Return the mean accuracy of the latest so many steps, NaN where it was not saved."""
        return mean(self._accuracies[-latest:])


def mean(values: Sequence[float]) -> float:
    """Return the mean."""
    return float(np.mean(values))


def fell(before: Sequence[float], after: Sequence[float], share: float = 0.0, sure: float = SURE) -> bool:
    """Return whether the mean fell by a share of itself, and by more than noise would make it fall."""
    with np.errstate(invalid="ignore"):  # of an infinite loss the noise is NaN, which nothing is larger than
        noise = math.sqrt(sum(float(np.var(values, ddof=1)) / len(values) for values in (before, after)))
    return mean(before) - mean(after) >= max(sure * noise, share * mean(before))
