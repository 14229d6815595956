"""Rules that look at losses and accuracies."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

from findings import Finding
from saved import ACCURACY, SCALARS, SavedStep

from rules.rule import ReviewRule
from rules.training_losses import SURE_OF_SEVERAL, TrainingLosses, fell, mean


class LossNotDecreasing(ReviewRule):
    """From its first num_steps steps to its end the training loss did not fall by diff_percent, or it rose again.

    AWS's rule compares steps num_steps apart all through the training, which a training that has converged breaks too:
    this one compares the mean of the first num_steps with that of the last third, which is num_steps at least; and once
    half of the phase's steps are over, with that of every num_steps so far. Rose: in the end that mean is above the
    lowest of as many losses on end by increase_threshold_percent of it, and surely by more than noise. What gets nine
    of ten training images right is left alone; and a fine-tuning, which begins with what its head has learned and may
    find nothing to add, unless its loss rises by half.
    """

    LEARNED = 0.9
    FINE_TUNING_MAY_RISE = 50.0  # percent
    needs = "training losses"

    def __init__(
        self, trial: Any, num_steps: int = 10, diff_percent: float = 0.1, increase_threshold_percent: float = 5.0
    ):
        super().__init__(
            trial,
            num_steps=num_steps,
            diff_percent=diff_percent,
            increase_threshold_percent=increase_threshold_percent,
        )
        self._num_steps = num_steps
        self._share = diff_percent / 100
        self._may_rise = increase_threshold_percent
        self._losses = TrainingLosses()
        self._was_lower = False

    def look(self, saved: SavedStep) -> None:
        if not self._losses.add(saved):
            return
        self.seen = True
        if not self._enough():
            return
        latest = self._losses.values[-self._num_steps :]
        self._was_lower = self._was_lower or self._fell_to(latest)
        end = self.base_trial.phase_end
        half_over = end is not None and saved.step - saved.phase_start >= (end - saved.phase_start) / 2
        if half_over and not self._was_lower and not self._losses.begin_late:
            found = self._what_is_wrong(latest, "half of the steps are over")
            if found:
                self.settle(found)

    def verdict(self) -> Finding:
        if not self._enough():
            return self.nothing(f"Too few saved losses to judge: {2 * self._num_steps} are needed.")
        if self._losses.begin_late:
            return self.nothing("The first steps were not seen: the training went on from a checkpoint.")
        latest = self._losses.last_third(self._num_steps)
        first, last = mean(self._first()), mean(latest)
        return self._what_is_wrong(latest, "the training is over") or self.nothing(
            f"The training loss went from {first:.4g} to {last:.4g}.", first_loss=first, last_loss=last
        )

    def _enough(self) -> bool:
        return len(self._losses.values) >= 2 * self._num_steps

    def _first(self) -> list[float]:
        return self._losses.values[: self._num_steps]

    def _fell_to(self, latest: list[float]) -> bool:
        return fell(self._first(), latest, self._share)

    def _what_is_wrong(self, latest: list[float], when: str) -> Finding | None:
        if self._losses.accuracy(len(latest)) >= self.LEARNED:
            return None
        first, last = mean(self._first()), mean(latest)
        step, values = self._losses.latest_step, {"first_loss": first, "last_loss": last}
        if not self._losses.go_on and not self._fell_to(latest):
            message = (
                f"The training loss went from {first:.4g} to {last:.4g}, and {when}: nothing was learned. Lower the "
                "learning rate if it was unsteady, raise it if it was flat, and look at whether the labels fit the "
                "images."
            )
            return self.issue(message, step, "losses", **values)
        may_rise = max(self._may_rise, self.FINE_TUNING_MAY_RISE) if self._losses.go_on else self._may_rise
        lowest = min(self._losses.before_latest(len(latest)), key=mean)
        if fell(latest, lowest, may_rise / (100 + may_rise), SURE_OF_SEVERAL):
            message = (
                f"The training loss rose from {mean(lowest):.4g} to {last:.4g}, and {when}: what was learned is lost "
                "again. Lower the learning rate, and look at whether later images and labels are like the first ones."
            )
            return self.issue(message, step, "losses", lowest_loss=mean(lowest), **values)
        return None


class _Evaluations(ReviewRule):
    """A rule on evaluations, each beside the mean training loss since the last: both without smoothing or weights."""

    needs = "validation loss beside a training loss"

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
        accuracy = saved.scalar(SCALARS, ACCURACY)
        if accuracy is not None:
            self._accuracies.append(accuracy)
        if self._training:
            self.seen = True
            self.evaluated(mean(self._training), loss)
        self._training = []

    @abstractmethod
    def evaluated(self, train_loss: float, valid_loss: float) -> None:
        """Take in an evaluation: the mean of the training losses since the one before, and the validation loss."""

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

    def verdict(self) -> Finding:
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
            if loss < self._best[name] - self._delta:
                self._best[name], self._since[name] = loss, 0
            else:
                self._since[name] += 1
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

    def verdict(self) -> Finding:
        return self._latest or self.nothing("The training ended before it had nothing more to gain.")
