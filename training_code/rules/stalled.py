"""The rule that looks at the clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from findings import Finding
from saved import SavedStep

from rules.rule import ReviewRule


class StalledTrainingRule(ReviewRule):
    """No step has ended for threshold seconds.

    Live only: a folder does not tell how long it took to be written. In the place of AWS's
    stop_training_on_fire and training_job_name_prefix there is `debugger.actions`.
    """

    seen = True

    def __init__(self, trial: Any, threshold: float = 1800, clock: Callable[[], float] = time.monotonic):
        super().__init__(trial, threshold=threshold)
        self._threshold = threshold
        self._clock = clock
        self._latest = clock()
        self._step = 0

    def look(self, saved: SavedStep) -> None:
        """Saved steps are too few to tell: `passed` and `watch` are called instead."""

    def passed(self, step: int) -> None:
        """Hear that a step or an evaluation has ended."""
        self.watch()
        self._latest, self._step = self._clock(), step

    def watch(self) -> Finding | None:
        """Return the finding if the training stalls, or has stalled."""
        silent = self._clock() - self._latest
        if self.finding is None and silent > self._threshold:
            message = (
                f"No step ended for {silent:.0f} s after step {self._step}: look at where the images come from, and at "
                "the disk and the memory in profile.json."
            )
            self.settle(self.issue(message, self._step, None, silent_seconds=silent))
        return self.finding

    def verdict(self) -> Finding:
        if not self.base_trial.live:
            return self.nothing("Judged live only: a folder does not tell how long steps took.")
        return self.nothing("The training went on.")
