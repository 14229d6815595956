"""Rules that look at weights and at what a step makes of them; not at vectors: biases, normalisations' weights."""

from __future__ import annotations

import math
from typing import Any

from findings import Finding
from saved import GRADIENTS, INPUTS, LABEL_COUNTS, UPDATES, WEIGHTS, SavedStep

from rules.rule import ReviewRule
from rules.training_losses import TrainingLosses, fell, mean


class PoorWeightInitialization(ReviewRule):
    """The loss does not fall in the first steps, and the weights or their gradients show why.

    Either all weights of a layer are equal, or the variances of the layers' weights differ by more than threshold, or a
    layer's gradients lie within distribution_range (AWS: their 5th and 95th percentiles; saved are minimum and
    maximum). AWS's page names these and the loss without saying how they go together: any of the three happens in
    trainings that go well. Until weights were saved steps times, the first patience losses are compared with the last
    third, patience at least; a network that then guesses better than by the commonest label knows something; and a
    fine-tuning, whose weights are trained, is left alone.
    """

    BETTER = 0.1
    needs = "weights beside training losses"

    def __init__(
        self,
        trial: Any,
        threshold: float = 10.0,
        distribution_range: float = 0.001,
        patience: int = 5,
        steps: int = 10,
    ):
        super().__init__(
            trial, threshold=threshold, distribution_range=distribution_range, patience=patience, steps=steps
        )
        self._threshold, self._range, self._patience, self._steps = threshold, distribution_range, patience, steps
        self._losses = TrainingLosses()
        self._commonest = 1.0
        self._saves = 0
        self._reason: tuple[int, str, str, dict[str, float]] | None = None

    def look(self, saved: SavedStep) -> None:
        if self._saves >= self._steps or not self._losses.add(saved):
            return
        counts = saved.values.get(INPUTS, {}).get(LABEL_COUNTS)
        if counts is not None:
            self._commonest = float(counts.max() / counts.sum())
        weights, gradients = saved.matrices(WEIGHTS), saved.matrices(GRADIENTS)
        if weights:
            self.seen = True
            self._saves += 1
            self._reason = self._reason or self._what_is_poor(saved.step, weights, gradients)

    def verdict(self) -> Finding:
        losses = self._losses.values
        if len(losses) < 2 * self._patience:
            return self.nothing(f"Too few saved losses to judge: {2 * self._patience} are needed.")
        if self._losses.begin_late:
            return self.nothing("The first steps were not seen: the training went on from a checkpoint.")
        if self._losses.go_on:
            return self.nothing("The weights are those of the phase before.")
        first, last = losses[: self._patience], self._losses.last_third(self._patience)
        knows = self._losses.accuracy(len(last)) > self._commonest + self.BETTER
        if self._reason is None or knows or fell(first, last):
            said = "The loss fell from the first steps on, or nothing about the weights is poor."
            return self.nothing(said, first_loss=mean(first), last_loss=mean(last))
        step, tensor, what, values = self._reason
        message = (
            f"The loss did not fall in the first {self._saves} saved steps, and {what}: initialise anew, by Kaiming "
            "for ReLU or Xavier for tanh, or start from trained weights."
        )
        return self.issue(message, step, tensor, **values)

    def _what_is_poor(
        self, step: int, weights: dict[str, Any], gradients: dict[str, Any]
    ) -> tuple[int, str, str, dict[str, float]] | None:
        variances = {name: one.variance for name, one in weights.items() if one.variance is not None}
        for name, variance in variances.items():
            if variance <= 0:
                return step, name, f"all weights of {name} are equal", {"variance": variance}
        if variances:
            low, high = min(variances, key=lambda name: variances[name]), max(variances.values())
            if high / variances[low] > self._threshold:
                ratio = high / variances[low]
                return step, low, f"the layers' weights vary by a factor of {ratio:.3g}", {"ratio": ratio}
        for name, one in gradients.items():
            if one.minimum is not None and one.maximum is not None and one.maximum - one.minimum < self._range:
                spread = one.maximum - one.minimum
                return step, name, f"{name} lies within {spread:.2g}", {"range": spread}
        return None


class WeightUpdateRatio(ReviewRule):
    """A step changes a weight by more than large_threshold times its size, or by less than small_threshold.

    Sizes are L2 norms of whole tensors, steps single ones, so that there is no num_steps. Too small counts only if it
    is so at every saved step, of which there must be two: at the end of a schedule every update is small.
    """

    needs = "updates of weights"

    def __init__(self, trial: Any, large_threshold: float = 10.0, small_threshold: float = 1e-8, epsilon: float = 1e-9):
        super().__init__(trial, large_threshold=large_threshold, small_threshold=small_threshold, epsilon=epsilon)
        self._large, self._small, self._epsilon = large_threshold, small_threshold, epsilon
        self._largest: dict[str, tuple[int, float]] = {}

    def look(self, saved: SavedStep) -> None:
        weights = saved.matrices(WEIGHTS)
        for update_name, update in saved.reduced(UPDATES).items():
            name = update_name.removeprefix("update/")
            weight = weights.get(name)
            if weight is None or not weight.l2 or update.l2 is None or not math.isfinite(update.l2):
                continue  # a layer that starts from zero has no ratio
            ratio = update.l2 / (weight.l2 + self._epsilon)
            steps, largest = self._largest.get(name, (0, 0.0))
            self._largest[name] = steps + 1, max(ratio, largest)
            self.seen = True
            if ratio > self._large:
                message = (
                    f"A step at {saved.step} changes {name} by {ratio:.3g} times its size: lower the learning rate."
                )
                self.settle(self.issue(message, saved.step, name, ratio=ratio))

    def verdict(self) -> Finding:
        still = [
            (largest, name) for name, (steps, largest) in self._largest.items() if steps > 1 and largest < self._small
        ]
        if not still:
            return self.nothing("Steps change the weights by a sensible share.")
        largest, name = min(still)
        message = (
            f"No step changes {name} by more than {largest:.2g} of its size ({len(still)} of {len(self._largest)} "
            "weights): raise the learning rate, or leave these layers out of the training."
        )
        return self.issue(message, None, name, ratio=largest)


class UnchangedTensor(ReviewRule):
    """A weight that is to be trained does not change in num_steps saved steps on end, while another does.

    Unchanged: every update is within atol + rtol * the weight's root mean square. AWS's rule does not ask for another
    that changes; the last steps of a schedule change nothing, and if nothing ever changes, WeightUpdateRatio says so.
    A weight that has changed once is not found any more: at the end of a schedule, layers stand still one by one; and
    weight decay still changes one that has died, which VanishingGradient finds. Weights that need no gradient are
    frozen on purpose, and not saved. There is no equal_nan: NaN is ExplodingTensor's.
    """

    needs = "step that changes a weight"

    def __init__(self, trial: Any, rtol: float = 1e-5, atol: float = 1e-8, num_steps: int = 3):
        super().__init__(trial, rtol=rtol, atol=atol, num_steps=num_steps)
        self._rtol, self._atol, self._num_steps = rtol, atol, num_steps
        self._unchanged: dict[str, int] = {}
        self._changed: set[str] = set()

    def look(self, saved: SavedStep) -> None:
        weights, updates = saved.reduced(WEIGHTS), saved.reduced(UPDATES)
        moved = {name for name in weights if self._has_moved(weights[name], updates.get(f"update/{name}"))}
        self._changed |= moved
        if not updates or not moved:
            return
        self.seen = True
        for name in weights.keys() - moved:
            self._unchanged[name] = self._unchanged.get(name, 0) + 1
            if self._unchanged[name] >= self._num_steps and name not in self._changed:
                message = (
                    f"{name} has not changed in {self._unchanged[name]} saved steps while others have: it is not in "
                    "the optimiser, or no gradient comes to it. Freeze it with requires_grad, or mend that."
                )
                self.settle(self.issue(message, saved.step, name, unchanged_steps=self._unchanged[name]))
        for name in moved:
            self._unchanged[name] = 0

    def verdict(self) -> Finding:
        return self.nothing("Every weight that is trained changes.")

    def _has_moved(self, weight: Any, update: Any) -> bool:
        if update is None:
            return False
        largest = max(abs(update.minimum or 0), abs(update.maximum or 0))
        size = math.sqrt((weight.variance or 0) + (weight.mean or 0) ** 2)
        return not largest <= self._atol + self._rtol * size


class AllZero(ReviewRule):
    """A weight is all zero at two saved steps on end.

    AWS's rule takes any share of zeros as its threshold, by default all of them, and any one step. What is saved tells
    no other share, and a layer that starts from zero on purpose is not zero after a step.
    """

    needs = "weights twice"

    def __init__(self, trial: Any):
        super().__init__(trial)
        self._before: set[str] | None = None

    def look(self, saved: SavedStep) -> None:
        weights = saved.matrices(WEIGHTS)
        if not weights:
            return
        zero = {name for name, one in weights.items() if one.l2 == 0}
        self.seen = self._before is not None
        for name in sorted(zero & (self._before or set())):
            message = f"{name} is all zero: initialise it, or lower weight decay if it became so."
            self.settle(self.issue(message, saved.step, name, zero_percent=100.0))
        self._before = zero

    def verdict(self) -> Finding:
        return self.nothing("No weight is all zero.")


class TensorVariance(ReviewRule):
    """The variance of a weight is above max_threshold or below min_threshold at the last two saved steps.

    AWS's thresholds have no defaults; these are those of its example.
    """

    needs = "variance of a weight twice"

    def __init__(self, trial: Any, max_threshold: float = 10.0, min_threshold: float = 1e-5):
        super().__init__(trial, max_threshold=max_threshold, min_threshold=min_threshold)
        self._max, self._min = max_threshold, min_threshold
        self._variances: dict[str, list[tuple[int, float]]] = {}

    def look(self, saved: SavedStep) -> None:
        for name, one in saved.matrices(WEIGHTS).items():
            if one.variance is not None:
                self._variances.setdefault(name, []).append((saved.step, one.variance))
                del self._variances[name][:-2]
                if len(self._variances[name]) == 2:
                    self.seen = True

    def verdict(self) -> Finding:
        for name, latest in self._variances.items():
            step, variance = latest[-1]
            if len(latest) < 2 or not math.isfinite(variance):
                continue
            if all(one > self._max for _, one in latest):
                said = "its layer saturates: lower the learning rate, raise weight decay, or initialise smaller"
            elif all(one < self._min for _, one in latest):
                said = "its units say nearly the same: initialise larger, or lower weight decay"
            else:
                continue
            return self.issue(f"{name} has a variance of {variance:.3g}: {said}.", step, name, variance=variance)
        return self.nothing("The weights vary as they should.")
