"""All rules, under SageMaker Debugger's names, and what runs them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import fastjsonschema
from documents import CONTRACTS
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

WORST_LAST = ("NoIssuesFound", "Error", "IssuesFound")


class ParameterError(JobError):
    """There is no such rule, it has no such parameter, or takes no such value."""


class Review:
    """All rules on one trial, anew for each phase: each trains a network of its own by a loss of its own.

    A rule that fails is a finding Error, and asked no more in that phase.
    """

    def __init__(self, trial: Any, parameters: Mapping[str, Mapping[str, float | bool]]):
        """parameters: of rules, instead of their defaults. Raises ParameterError."""
        if parameters:
            _check(parameters)
        self._trial, self._parameters = trial, parameters
        self.stalled = StalledTrainingRule(trial, **self._given(StalledTrainingRule))
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
        return [
            self.stalled if rule is StalledTrainingRule else rule(self._trial, **self._given(rule)) for rule in RULES
        ]

    def _given(self, rule: type[ReviewRule]) -> Mapping[str, Any]:
        return self._parameters.get(rule.__name__, {})

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


def _check(parameters: Mapping[str, Mapping[str, float | bool]]) -> None:
    """Raise ParameterError for what the execution input would not take as debugger.parameters."""
    contract = json.loads((CONTRACTS / "execution_input.schema.json").read_bytes())
    taken = contract["properties"]["debugger"]["properties"]["parameters"]
    try:
        fastjsonschema.compile(taken, use_default=False)(parameters, name_prefix="parameters")
    except fastjsonschema.JsonSchemaException as error:
        raise ParameterError(str(error)) from error
