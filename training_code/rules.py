"""Rules that judge a finished training by what the hooks saved, under SageMaker Debugger's names and parameters.

Each is a smdebug Rule. Parameters and defaults are those of "List of Debugger Built-in Rules" in AWS's developer guide,
whose rules judge while the training runs and whose code is not public; where a verdict on the whole training has to
differ so that a training that converged is no issue, the rule says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from debugger import Rule, TensorUnavailableForStep, modes

LOWER_RATE = "lower the learning rate, and check the images for what normalisation turns into infinities"


class ReviewRule(Rule):
    """A rule that is invoked at every saved training step, and then asked for its finding."""

    def __init__(self, trial: Any):
        super().__init__(trial, action_str="")
        self.finding: dict[str, Any] | None = None

    def conclude(self) -> dict[str, Any]:
        """Return the finding, once every step was seen."""
        return self.finding or self.found_nothing({}, "Nothing unusual.")

    def found(self, step: int | None, tensor: str | None, values: dict[str, float], message: str) -> dict[str, Any]:
        """Return a finding IssuesFound."""
        return self._describe("IssuesFound", step, tensor, values, message)

    def found_nothing(self, values: dict[str, float], message: str) -> dict[str, Any]:
        """Return a finding NoIssuesFound."""
        return self._describe("NoIssuesFound", None, None, values, message)

    def _describe(
        self, status: str, step: int | None, tensor: str | None, values: dict[str, float], message: str
    ) -> dict[str, Any]:
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        return {
            "rule": type(self).__name__,
            "status": status,
            "step": step,
            "tensor": tensor,
            "values": finite,
            "message": message,
        }


class ExplodingTensor(ReviewRule):
    """A tensor holds NaN or an infinity. only_nan: leave infinities alone."""

    def __init__(self, trial: Any, only_nan: bool = False):
        super().__init__(trial)
        self._only_nan = only_nan

    def invoke_at_step(self, step: int) -> bool:
        """Return whether a tensor exploded at this global step."""
        for name, values in _numbers(self.base_trial, step):
            for value in values:
                if math.isnan(value) or (math.isinf(value) and not self._only_nan):
                    mode_step = self.base_trial.mode_step(step)
                    message = f"{name} holds {value} at step {mode_step}: {LOWER_RATE}."
                    self.finding = self.found(mode_step, name, {"value": value}, message)
                    return True
        return False

    def conclude(self) -> dict[str, Any]:
        """Return the finding."""
        return self.finding or self.found_nothing({}, "No tensor holds NaN or an infinity.")


class LossNotDecreasing(ReviewRule):
    """The training loss did not fall by diff_percent between its first num_steps steps and its last.

    AWS's rule compares steps num_steps apart all through the training, which a training that has converged breaks too;
    this one compares the means of the first and of the last num_steps.
    """

    def __init__(self, trial: Any, num_steps: int = 10, diff_percent: float = 0.1):
        super().__init__(trial)
        self._num_steps = num_steps
        self._diff_percent = diff_percent
        self._losses: dict[int, float] = {}

    def invoke_at_step(self, step: int) -> bool:
        """Note the loss of this global step."""
        for name in self.base_trial.tensor_names(step=step, collection="losses"):
            self._losses[self.base_trial.mode_step(step)] = float(self.base_trial.tensor(name).value(step).mean())
        return False

    def conclude(self) -> dict[str, Any]:
        """Return the finding."""
        steps = sorted(self._losses)
        if not steps or steps[-1] - steps[0] < 2 * self._num_steps:
            return self.found_nothing({}, f"Too few steps to judge the loss: {2 * self._num_steps} are needed.")
        first = _mean(self._losses[step] for step in steps if step < steps[0] + self._num_steps)
        last = _mean(self._losses[step] for step in steps if step > steps[-1] - self._num_steps)
        values = {"first_loss": first, "last_loss": last, "diff_percent": self._diff_percent}
        if last > first * (1 - self._diff_percent / 100):
            message = (
                f"The training loss went from {first:.4g} to {last:.4g}: nothing was learned. Lower the learning rate "
                "if it was unsteady, raise it if it was flat, and look at whether the labels fit the images."
            )
            return self.found(steps[-1], "losses", values, message)
        return self.found_nothing(values, f"The training loss went from {first:.4g} to {last:.4g}.")


class VanishingGradient(ReviewRule):
    """The mean absolute gradient of a layer's weight is below threshold at every saved step.

    AWS's rule fires at the first such step; a training that has converged has small gradients at its end, so this one
    wants them from the start, in at least two steps.
    """

    def __init__(self, trial: Any, threshold: float = 1e-7):
        super().__init__(trial)
        self._threshold = threshold
        self._largest: dict[str, tuple[int, float]] = {}

    def invoke_at_step(self, step: int) -> bool:
        """Note the gradients of this global step."""
        for name in self.base_trial.tensor_names(step=step, collection="gradients"):
            if name.endswith("weight"):
                size = float(self.base_trial.tensor(name).reduction_value(step, "mean", abs=True))
                steps, largest = self._largest.get(name, (0, 0.0))
                self._largest[name] = steps + 1, max(largest, size) if size == size else math.inf
        return False

    def conclude(self) -> dict[str, Any]:
        """Return the finding."""
        vanished = [
            (largest, name)
            for name, (steps, largest) in self._largest.items()
            if steps > 1 and largest < self._threshold
        ]
        if not vanished:
            return self.found_nothing({"threshold": self._threshold}, "Every layer's gradients kept their size.")
        largest, name = min(vanished)
        message = (
            f"The gradients of {len(vanished)} of {len(self._largest)} weights stayed below {self._threshold:g}, "
            f"smallest {name}: those layers do not learn. Use another initialisation, fewer layers, or a normalisation."
        )
        return self.found(None, name, {"largest_mean": largest, "threshold": self._threshold}, message)


RULES = (ExplodingTensor, LossNotDecreasing, VanishingGradient)


def review(trial: Any) -> list[dict[str, Any]]:
    """Return each rule's finding on a finished training. A rule that fails is a finding Error."""
    findings = []
    steps = [trial.global_step(modes.TRAIN, step) for step in trial.steps(mode=modes.TRAIN)]
    for make_rule in RULES:
        rule = make_rule(trial)
        try:
            for step in steps:
                if rule.invoke_at_step(step):
                    break
            findings.append(rule.conclude())
        except Exception as error:  # noqa: BLE001 - whatever smdebug raises is the finding
            message = f"the rule failed: {type(error).__name__}: {error}"
            findings.append({**rule.found_nothing({}, message), "status": "Error"})
    return findings


def _numbers(trial: Any, step: int) -> Iterable[tuple[str, list[float]]]:
    """Yield each tensor saved at a global step, with what is known of its values."""
    for name in trial.tensor_names(step=step):
        tensor = trial.tensor(name)
        try:
            values = [tensor.value(step).min(), tensor.value(step).max()]
        except TensorUnavailableForStep:  # only reductions were saved
            values = _reductions(tensor, step)
        yield name, [float(value) for value in values]


def _reductions(tensor: Any, step: int) -> list[Any]:
    try:  # neither a NaN nor an infinity stays hidden in the norm, and each read costs
        return [tensor.reduction_value(step, "l2")]
    except TensorUnavailableForStep:  # SageMaker's configuration may ask for others
        return list(tensor.reduction_values(step).values())


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
