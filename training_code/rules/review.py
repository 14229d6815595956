"""All rules, under SageMaker Debugger's names, and what runs them."""

from __future__ import annotations

from typing import Any

from findings import Finding

from rules.activations import DeadRelu, SaturatedActivation
from rules.gradients import ExplodingTensor, VanishingGradient
from rules.inputs import CheckInputImages, ClassImbalance, LeakingLabels, ShuffledLabels
from rules.loss import LossNotDecreasing, Overfit, Overtraining
from rules.rule import ReviewRule
from rules.stalled import StalledTrainingRule
from rules.weights import AllZero, PoorWeightInitialization, TensorVariance, UnchangedTensor, WeightUpdateRatio

RULES: tuple[type[ReviewRule], ...] = (
    ExplodingTensor,
    LossNotDecreasing,
    VanishingGradient,
    PoorWeightInitialization,
    WeightUpdateRatio,
    UnchangedTensor,
    AllZero,
    TensorVariance,
    DeadRelu,
    SaturatedActivation,
    Overfit,
    Overtraining,
    ClassImbalance,
    CheckInputImages,
    ShuffledLabels,
    LeakingLabels,
    StalledTrainingRule,
)


class Review:
    """All rules on one trial. A rule that fails is a finding Error, and asked no more."""

    def __init__(self, trial: Any):
        self._rules = [make_rule(trial) for make_rule in RULES]
        self._failed: dict[str, Finding] = {}

    def invoke(self, step: int) -> list[Finding]:
        """Show every rule a global step; return the findings that came to stay by it."""
        found: list[Finding] = []
        for rule in self._rules:
            if rule.finding is None and rule.rule_name not in self._failed:
                try:
                    if rule.invoke_at_step(step) and rule.finding:
                        found.append(rule.finding)
                except Exception as error:  # noqa: BLE001 - whatever a rule raises is its finding
                    self._failed[rule.rule_name] = rule.failed(error)
        return found

    def conclude(self) -> list[Finding]:
        """Return each rule's finding."""
        findings = []
        for rule in self._rules:
            try:
                findings.append(self._failed.get(rule.rule_name) or rule.conclude())
            except Exception as error:  # noqa: BLE001 - as above
                findings.append(rule.failed(error))
        return findings

    @property
    def stalled(self) -> StalledTrainingRule:
        """The rule that must hear of every step."""
        return next(rule for rule in self._rules if isinstance(rule, StalledTrainingRule))
