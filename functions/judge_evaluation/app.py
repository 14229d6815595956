"""JudgeEvaluation: the gate. Holds an evaluation against the run's thresholds.

Event: {"plan_uri": ...}. Answer: the verdict, contracts/verdict.schema.json.
"""

import functools
import math
from typing import Any

import boto3
import documents
from aws_lambda_powertools import Logger

Z_95_PERCENT = 1.959964
"""Quantile of the normal distribution for a two-sided interval at 95 %."""


class EvaluationMismatch(Exception):
    """The evaluation speaks of another run's model."""


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    s3 = client("s3")
    plan = documents.read(s3, event["plan_uri"], "plan")
    evaluation = documents.read(s3, plan["locations"]["evaluation"], "evaluation")
    if evaluation["run_id"] != plan["run_id"]:
        raise EvaluationMismatch(f"the evaluation is of run {evaluation['run_id']}, not of {plan['run_id']}")
    verdict = judge(evaluation, plan["input"]["gate"])
    log(plan["execution_arn"], context).info("judged", extra={"verdict": verdict["verdict"]})
    documents.write(s3, f"s3://{plan['bucket']}/{plan['prefix']}/verdict.json", "verdict", verdict)
    return verdict


def judge(evaluation: dict[str, Any], gate: dict[str, Any]) -> dict[str, Any]:
    """Return the verdict, accept or reject, with every check and the reason in sentences. gate: of the input."""
    checks = [
        _at_least("min_accuracy", "accuracy", evaluation["accuracy"], gate["min_accuracy"]),
        _at_least("min_macro_f1", "macro F1", evaluation["macro_f1"], gate["min_macro_f1"]),
        _worst_class(evaluation, gate["min_class_recall"]),
    ]
    if gate["must_beat_majority"]:
        checks.append(_beats_majority(evaluation))
    failed = [check["statement"] for check in checks if not check["passed"]]
    accuracy = f"accuracy {evaluation['accuracy']:.4f} on {evaluation['images']} images of {evaluation['split']}"
    reason = f"Rejected with {accuracy}: {'; '.join(failed)}." if failed else f"Accepted with {accuracy}."
    return {
        "version": 1,
        "run_id": evaluation["run_id"],
        "verdict": "reject" if failed else "accept",
        "reason": reason,
        "accuracy": evaluation["accuracy"],
        "images": evaluation["images"],
        "checks": checks,
    }


def wilson_lower_bound(share: float, images: int) -> float:
    """Return the lower end of the 95 % score interval of a share (Wilson 1927, JASA 22, 209-212)."""
    z2 = Z_95_PERCENT**2
    centre = share + z2 / (2 * images)
    margin = Z_95_PERCENT * math.sqrt(share * (1 - share) / images + z2 / (4 * images**2))
    return (centre - margin) / (1 + z2 / images)


def _worst_class(evaluation: dict[str, Any], threshold: float) -> dict[str, Any]:
    # A class without an image in the split has no recall to judge.
    seen = [one for one in evaluation["per_class"] if one["images"]]
    worst = min(seen, key=lambda one: one["recall"])
    return _at_least("min_class_recall", f"recall of the worst class, {worst['label']},", worst["recall"], threshold)


def _beats_majority(evaluation: dict[str, Any]) -> dict[str, Any]:
    lower = wilson_lower_bound(evaluation["accuracy"], evaluation["images"])
    share = evaluation["majority_share"]
    passed = lower > share
    than = "above" if passed else "not above"
    statement = (
        f"accuracy is at least {lower:.4f} at 95 % confidence, {than} the {share:.4f} "
        "of always answering the most common class (must_beat_majority)"
    )
    return _check("must_beat_majority", passed, lower, share, statement)


def _at_least(name: str, what: str, value: float, threshold: float) -> dict[str, Any]:
    passed = value >= threshold
    than = "not below" if passed else "below"
    return _check(name, passed, value, threshold, f"{what} {value:.4f} is {than} {name} {threshold}")


def _check(name: str, passed: bool, value: float, threshold: float, statement: str) -> dict[str, Any]:
    return {"name": name, "passed": passed, "value": value, "threshold": threshold, "statement": statement}


def log(execution_arn: str, context: Any) -> Logger:
    logger = Logger()
    logger.set_correlation_id(execution_arn)
    logger.append_keys(request_id=context.aws_request_id)
    return logger


@functools.cache
def client(service: str) -> Any:
    return boto3.client(service)
