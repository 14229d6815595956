"""The rules that SageMaker Debugger itself evaluates, where the stack was deployed with ManagedDebugger."""

from collections.abc import Sequence
from typing import Any

RULE_STATUSES = ("DebugRuleEvaluationStatuses", "ProfilerRuleEvaluationStatuses")
OURS = {"NoIssuesFound": "NoIssuesFound", "IssuesFound": "IssuesFound"}
"""Anything else that a rule ends with (Error, Stopping, Stopped) has judged nothing."""


def statuses_of(sagemaker: Any, job: str) -> list[dict[str, str]]:
    """Return rule, status and details of a training job's managed rules."""
    described = sagemaker.describe_training_job(TrainingJobName=job)
    return [
        {
            "rule": one["RuleConfigurationName"],
            "status": one["RuleEvaluationStatus"],
            "details": one.get("StatusDetails", ""),
        }
        for member in RULE_STATUSES
        for one in described.get(member, [])
    ]


def findings_of(statuses: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Return them as findings."""
    return [
        {
            "rule": one["rule"],
            "source": "managed",
            "status": OURS.get(one["status"], "Error"),
            "step": None,
            "tensor": None,
            "values": {},
            "parameters": {},
            "message": f"SageMaker Debugger's own rule ended {one['status']}. {one['details']}".strip(),
        }
        for one in statuses
    ]
