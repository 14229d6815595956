"""Rules that look at losses and accuracies."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from findings import Finding
from saved import ACCURACY, LOSSES, SavedStep

from rules.rule import ReviewRule


class LossNotDecreasing(ReviewRule):
    """The training loss did not fall by diff_percent between the first and the last num_steps steps.

    AWS's rule compares steps num_steps apart all through the training, which a training that has converged breaks too:
    this one compares the means of the first and of the last num_steps training steps, at the end, and once half of the
    steps are over and the loss has never been lower than at first.
    """

    def __init__(self, trial: Any, num_steps: int = 10, diff_percent: float = 0.1):
        super().__init__(trial, num_steps=num_steps, diff_percent=diff_percent)
        self._num_steps = num_steps
        self._share = 1 - diff_percent / 100
        self._first: list[float] = []
        self._first_step: int | None = None
        self._recent: deque[tuple[int, float]] = deque()
        self._lowest = math.inf

    def look(self, saved: SavedStep) -> None:
        loss = saved.scalar(LOSSES)
        if not saved.training or loss is None:
            return
        if self._first_step is None:
            self._first_step = saved.step
        if saved.step < self._first_step + self._num_steps:
            self._first.append(loss)
        self._recent.append((saved.step, loss))
        while self._recent[0][0] <= saved.step - self._num_steps:
            self._recent.popleft()
        if self._judged():
            self._lowest = min(self._lowest, self._last())
            total = self.base_trial.total_steps
            if total and saved.step >= total / 2 and self._lowest > _mean(self._first) * self._share:
                self.settle(self._found(f"half of the {total} steps are over"))

    def conclude(self) -> Finding:
        if self.finding:
            return self.finding
        if not self._judged():
            return self.nothing(f"Too few steps to judge the loss: {2 * self._num_steps} are needed.")
        first, last = _mean(self._first), self._last()
        if not last <= first * self._share:
            return self._found("the training is over")
        return self.nothing(f"The training loss went from {first:.4g} to {last:.4g}.", first_loss=first, last_loss=last)

    def _judged(self) -> bool:
        return bool(self._recent) and self._recent[-1][0] - (self._first_step or 0) >= 2 * self._num_steps - 1

    def _last(self) -> float:
        return _mean([loss for _, loss in self._recent])

    def _found(self, when: str) -> Finding:
        first, last = _mean(self._first), self._last()
        message = (
            f"The training loss went from {first:.4g} to {last:.4g}, and {when}: nothing was learned. Lower the "
            "learning rate if it was unsteady, raise it if it was flat, and look at whether the labels fit the images."
        )
        return self.issue(message, self._recent[-1][0], "losses", first_loss=first, last_loss=last)


class _Evaluations(ReviewRule):
    """A rule on evaluations, each beside the mean training loss since the last: both without smoothing or weights."""

    def __init__(self, trial: Any, **parameters: float):
        super().__init__(trial, **parameters)
        self._training: list[float] = []
        self._training_step = 0
        self._accuracies: list[float] = []

    def look(self, saved: SavedStep) -> None:
        loss = saved.plain_loss()
        if loss is None:
            return
        if saved.training:
            self._training.append(loss)
            self._training_step = saved.step
            return
        accuracy = saved.scalar("scalars", ACCURACY)
        if accuracy is not None:
            self._accuracies.append(accuracy)
        if self._training:
            self.evaluated(_mean(self._training), loss)
        self._training = []

    def evaluated(self, train_loss: float, valid_loss: float) -> None:
        raise NotImplementedError

    def _accuracy_has_fallen(self) -> bool:
        """Return whether accuracy is below its best by more than chance and one image in a hundred would make it."""
        if not self._accuracies:
            return True
        best, now = max(self._accuracies), self._accuracies[-1]
        images = self.base_trial.valid_images or 1000
        return best - now > max(0.01, 2 * math.sqrt(max(best * (1 - best), 1 / images) / images))


class Overfit(_Evaluations):
    """The validation loss is above the training loss by ratio_threshold, patience evaluations in a row.

    AWS's rule knows no more than that ratio, which nearly every training that fits its data well exceeds. This one also
    asks that the validation loss has risen by ratio_threshold above its best, and that accuracy has fallen from its
    best by more than two standard errors and by more than 0.01.
    """

    def __init__(self, trial: Any, start_step: int = 0, patience: int = 1, ratio_threshold: float = 0.1):
        super().__init__(trial, start_step=start_step, patience=patience, ratio_threshold=ratio_threshold)
        self._start_step, self._patience, self._ratio_threshold = start_step, patience, ratio_threshold
        self._best = math.inf
        self._in_a_row = 0
        self._latest: Finding | None = None

    def evaluated(self, train_loss: float, valid_loss: float) -> None:
        self._best = min(self._best, valid_loss)
        ratio = (valid_loss - train_loss) / max(train_loss, 1e-12)
        worse = (
            self._training_step >= self._start_step
            and ratio > self._ratio_threshold
            and valid_loss > self._best * (1 + self._ratio_threshold)
            and self._accuracy_has_fallen()
        )
        self._in_a_row = self._in_a_row + 1 if worse else 0
        self._latest = None
        if self._in_a_row >= self._patience:
            message = (
                f"The validation loss is {valid_loss:.4g}, {ratio:.0%} above the training loss, and was "
                f"{self._best:.4g} at its best: the network learns its images by heart. Regularise more (weight "
                "decay, dropout), train fewer layers, or give it more images."
            )
            self._latest = self.issue(
                message, self._training_step, "losses", valid_loss=valid_loss, train_loss=train_loss, best=self._best
            )

    def conclude(self) -> Finding:
        return self._latest or self.nothing("Validation kept pace with training.")


class Overtraining(_Evaluations):
    """Neither loss has improved by delta for patience_train and patience_validation evaluations: the rest was in vain.

    AWS counts steps; between evaluations there is nothing that could improve here, so that these count. A training that
    has arrived and stays there is no issue: the validation loss must also have risen by a tenth above its best, and
    accuracy fallen, as Overfit asks.
    """

    def __init__(self, trial: Any, patience_train: int = 5, patience_validation: int = 10, delta: float = 0.01):
        super().__init__(trial, patience_train=patience_train, patience_validation=patience_validation, delta=delta)
        self._patience_train, self._patience_validation, self._delta = patience_train, patience_validation, delta
        self._best = {"train": math.inf, "valid": math.inf}
        self._since = {"train": 0, "valid": 0}
        self._latest: Finding | None = None

    def evaluated(self, train_loss: float, valid_loss: float) -> None:
        for name, loss in (("train", train_loss), ("valid", valid_loss)):
            improved = loss < self._best[name] - self._delta
            self._since[name] = 0 if improved else self._since[name] + 1
            self._best[name] = min(loss, self._best[name]) if improved else self._best[name]
        over = (
            self._since["train"] >= self._patience_train
            and self._since["valid"] >= self._patience_validation
            and valid_loss > self._best["valid"] * 1.1
            and self._accuracy_has_fallen()
        )
        self._latest = None
        if over:
            message = (
                f"The validation loss was {self._best['valid']:.4g} {self._since['valid']} evaluations ago and is "
                f"{valid_loss:.4g}: train for fewer epochs. The model is that of the best one."
            )
            self._latest = self.issue(
                message, self._training_step, "losses", valid_loss=valid_loss, best=self._best["valid"]
            )

    def conclude(self) -> Finding:
        return self._latest or self.nothing("The training ended before it had nothing more to gain.")


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
