"""All rules, under SageMaker Debugger's names, and what runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from findings import Finding
from job import JobError

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


AnyRule = TypeVar("AnyRule", bound=ReviewRule)
WORST_LAST = ("NoIssuesFound", "Error", "IssuesFound")


class UnknownParameter(JobError):
    """There is no such rule, or it has no such parameter."""


class Review:
    """All rules on one trial, anew for each phase: each trains a network of its own by a loss of its own.

    A rule that fails is a finding Error, and asked no more in that phase.
    """

    def __init__(self, trial: Any, parameters: Mapping[str, Mapping[str, float | bool]]):
        """parameters: of rules, instead of their defaults. Raises UnknownParameter."""
        unknown = parameters.keys() - {rule.__name__ for rule in RULES}
        if unknown:
            raise UnknownParameter(f"there is no rule {', '.join(sorted(unknown))}")
        self._trial, self._parameters = trial, parameters
        self.stalled = self._make(StalledTrainingRule)
        self._phases = [self._make_rules()]
        self._phase_start: int | None = None
        self._failed: dict[ReviewRule, Finding] = {}

    def invoke(self, step: int) -> list[Finding]:
        """Show every rule a global step; return the findings that came to stay by it."""
        self._begin_phase(self._trial.at(step).phase_start)
        found: list[Finding] = []
        for rule in self._phases[-1]:
            if rule.finding is None and rule not in self._failed:
                try:
                    if rule.invoke_at_step(step) and rule.finding:
                        found.append(self._worded(rule, rule.finding))
                except Exception as error:  # noqa: BLE001 - whatever a rule raises is its finding
                    self._failed[rule] = rule.failed(error)
        return found

    def conclude(self) -> list[Finding]:
        """Return each rule's finding: the worst of its phases, the first of several such."""
        return [self._worst(rules) for rules in zip(*self._phases, strict=True)]

    def _make_rules(self) -> list[ReviewRule]:
        return [self.stalled if rule is StalledTrainingRule else self._make(rule) for rule in RULES]

    def _make(self, rule: type[AnyRule]) -> AnyRule:
        given = self._parameters.get(rule.__name__, {})
        try:
            return rule(self._trial, **given)
        except TypeError as error:
            raise UnknownParameter(f"{rule.__name__} has no such parameters as {', '.join(given)}: {error}") from error

    def _begin_phase(self, start: int) -> None:
        if self._phase_start not in (None, start):
            self._phases.append(self._make_rules())
        self._phase_start = start

    def _worst(self, rules: Sequence[ReviewRule]) -> Finding:
        findings = [(self._conclude(rule), rule) for rule in rules]
        finding, rule = max(findings, key=lambda one: (WORST_LAST.index(one[0]["status"]), one[1].seen))
        same = all(one["message"] == finding["message"] for one, _ in findings)
        return finding if same else self._worded(rule, finding)

    def _conclude(self, rule: ReviewRule) -> Finding:
        try:
            return self._failed.get(rule) or rule.conclude()
        except Exception as error:  # noqa: BLE001 - as above
            return rule.failed(error)

    def _worded(self, rule: ReviewRule, finding: Finding) -> Finding:
        """Return a finding that says of which phase it is, if there are several."""
        if rule is self.stalled or len(self._phases) == 1:
            return finding
        number = next(number for number, rules in enumerate(self._phases, start=1) if rule in rules)
        return {**finding, "message": f"In phase {number}: {finding['message']}"}
