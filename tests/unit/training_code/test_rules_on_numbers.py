"""Rules on losses and gradients made up for them: what noise, a rise and a second network make of their findings."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
from hooks import LiveTrial
from rules.gradients import VanishingGradient
from rules.loss import LossNotDecreasing
from rules.rule import ReviewRule
from rules.weights import PoorWeightInitialization
from saved import ACCURACY, GRADIENTS, LOSSES, SCALARS, WEIGHTS, Reductions, SavedStep


def judge_losses(
    rule: Callable[..., ReviewRule], steps: int, every: int, loss: Callable[[int], float], phase_start: int = 0
) -> str:
    """Return the status of a rule that is shown losses, and weights that it finds poor, of a phase so long."""
    trial = LiveTrial()
    trial.phase_end = phase_start + steps
    judging = rule(trial)
    poor = {WEIGHTS: {"weight": Reductions(variance=0.0)}}
    for step in range(0, steps, every):
        values = {LOSSES: {"loss": np.float32(loss(step))}, SCALARS: {ACCURACY: np.float32(0.3)}}
        reductions = {} if step % (4 * every) else poor
        trial.current = SavedStep(phase_start + step, True, phase_start, reductions, values)
        judging.invoke_at_step(phase_start + step)
    return str(judging.conclude()["status"])


@pytest.mark.parametrize("steps", [100, 4000])
@pytest.mark.parametrize("rule", [LossNotDecreasing, PoorWeightInitialization])
def test_noise_is_no_learning_and_hides_none(rule: type[ReviewRule], steps: int) -> None:
    generator = np.random.default_rng(0)

    def fired(fall: float) -> int:
        def loss(step: int) -> float:
            return float(1 - fall * min(1, 2 * step / steps) + generator.normal(scale=0.1))

        return sum(judge_losses(rule, steps, max(1, steps // 100), loss) == "IssuesFound" for _ in range(100))

    assert fired(fall=0.0) >= 90
    assert fired(fall=0.5) <= 3


@pytest.mark.parametrize(("allowed", "expected"), [(5, "IssuesFound"), (100, "NoIssuesFound")])
def test_a_loss_that_has_fallen_may_rise_by_so_much_and_by_noise(allowed: float, expected: str) -> None:
    noise = np.random.default_rng(0)

    def status(by: float) -> str:
        def loss(step: int) -> float:
            return float(2 - min(1.0, step / 40) + by * max(0, step - 60) / 40 + noise.normal(scale=0.1))

        return judge_losses(functools.partial(LossNotDecreasing, increase_threshold_percent=allowed), 100, 1, loss)

    assert {status(1.0) for _ in range(30)} == {expected}
    assert {status(0.0) for _ in range(30)} == {"NoIssuesFound"}


@pytest.mark.parametrize("rule", [LossNotDecreasing, PoorWeightInitialization])
def test_a_later_phase_may_find_nothing_to_add(rule: type[ReviewRule]) -> None:
    """Only a loss that rises is a fault of it: what its network knows is the earlier phase's."""
    noise = np.random.default_rng(0)
    for rise, expected in ((0.0, "NoIssuesFound"), (1.0, "IssuesFound")):
        judged = judge_losses(rule, 100, 1, lambda step, by=rise: 1 + by * step / 100 + noise.normal(scale=0.1), 50)
        assert judged == (expected if rule is LossNotDecreasing else "NoIssuesFound")


@pytest.mark.parametrize(("network", "expected"), [("first", "IssuesFound"), ("second", "NoIssuesFound")])
def test_a_weight_that_is_saved_no_more_has_not_died(network: str, expected: str) -> None:
    trial = LiveTrial()
    rule = VanishingGradient(trial)
    for step in range(8):
        trained, there = ("first.weight", "first.weight") if step < 4 else ("second.weight", f"{network}.weight")
        gradients = {f"gradient/{trained}": Reductions(absolute_mean=1.0)}
        trial.current = SavedStep(step, True, 0, {GRADIENTS: gradients, WEIGHTS: {there: Reductions(variance=1.0)}})
        rule.invoke_at_step(step)
    assert rule.conclude()["status"] == expected
