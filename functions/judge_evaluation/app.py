"""JudgeEvaluation: the gate. Holds an evaluation against the run's thresholds, and the model against the champion.

Event: {"plan_uri": ...}. Answer: the verdict, contracts/verdict.schema.json.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import documents
from invocation import client, log

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
        _calibrated(evaluation["calibration_error"], gate["max_calibration_error"]),
    ]
    if gate["must_beat_majority"]:
        checks.append(_beats_majority(evaluation))
    comparison, why = compare(evaluation.get("champion"), gate)
    if comparison["case"] == "compared":
        passed = comparison["lower_bound"] >= -gate["max_regression"]
        checks.append(_check("max_regression", passed, comparison["lower_bound"], -gate["max_regression"], why))
    failed = [check["statement"] for check in checks if not check["passed"]]
    accuracy = f"accuracy {evaluation['accuracy']:.4f} on {evaluation['images']} images of {evaluation['split']}"
    reason = f"Rejected with {accuracy}: {'; '.join(failed)}." if failed else f"Accepted with {accuracy}; {why}."
    return {
        "version": 1,
        "run_id": evaluation["run_id"],
        "verdict": "reject" if failed else "accept",
        "reason": reason,
        "accuracy": evaluation["accuracy"],
        "images": evaluation["images"],
        "data_digest": evaluation["data_digest"],
        "weights_sha256": evaluation["weights_sha256"],
        "checks": checks,
        "comparison": comparison,
    }


def compare(champion: dict[str, Any] | None, gate: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the comparison with the champion, contracts/verdict.schema.json, and what it says, in words."""
    counted = champion or {"run_id": None, "images": 0, "left_out": 0, "wins": 0, "losses": 0}
    images, wins, losses = counted["images"], counted["wins"], counted["losses"]
    comparison = {
        "champion_run_id": counted["run_id"],
        **{name: counted[name] for name in ("images", "left_out", "wins", "losses")},
        **dict.fromkeys(("difference", "lower_bound", "p_value")),
    }
    if champion is None:
        return {**comparison, "case": "no_champion"}, "there is no champion to compare it with"
    whose = f"the champion of run {champion['run_id']}"
    if not champion["same_classes"]:
        return {**comparison, "case": "other_classes"}, f"{whose} knows other classes, so that they were not compared"
    left_out = f"{champion['left_out']} that the champion was trained on left out"
    if images < gate["min_images"]:
        too_few = f"only {images} images ({left_out}) could be compared with {whose}, fewer than min_images"
        return {**comparison, "case": "too_few_images"}, f"{too_few} {gate['min_images']}"
    comparison |= {
        "case": "compared",
        "difference": (wins - losses) / images,
        "lower_bound": bootstrap_lower_bound(wins, losses, images, gate["confidence"]),
        "p_value": mcnemar_p_value(wins, losses),
    }
    worse = comparison["lower_bound"] < -gate["max_regression"]
    return comparison, (
        f"against {whose} on {images} images ({left_out}) it alone is right on {wins}, the champion alone on {losses} "
        f"(p = {comparison['p_value']:.3g}): the accuracy changes by {comparison['difference']:+.4f}, "
        f"at {gate['confidence']:.0%} confidence by no less than {comparison['lower_bound']:+.4f}, which is "
        f"{'below' if worse else 'not below'} the {-gate['max_regression']} that max_regression allows"
    )


def mcnemar_p_value(wins: int, losses: int) -> float:
    """Return the two-sided p-value of McNemar's exact test: of the pairs that differ, half go either way by chance.

    McNemar 1947, Psychometrika 12, 153-157; exact form: Fagerland et al. 2013, BMC Med Res Methodol 13, 91.
    """
    differing = wins + losses
    tail = sum(_binomial(k, differing, 0.5) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail)


def bootstrap_lower_bound(wins: int, losses: int, images: int, confidence: float) -> float:
    """Return the lower end of the one-sided percentile interval of the difference of accuracies.

    The pairs are resampled: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13. A resampled
    difference depends on nothing but how many of its pairs are wins and losses, which are multinomial: so the interval
    is that of endlessly many samples, computed and not drawn.
    """
    differing = wins + losses
    if not differing:
        return 0.0
    probability: dict[int, float] = defaultdict(float)
    for k, of_k in _likely(images, differing / images):
        for w, of_w in _likely(k, wins / differing):
            probability[2 * w - k] += of_k * of_w
    reached = 0.0
    for difference in sorted(probability):
        reached += probability[difference]
        # The sum of so many terms is off by rounding.
        if reached >= 1 - confidence - 1e-9:
            break
    return difference / images


def _likely(trials: int, share: float) -> Iterator[tuple[int, float]]:
    """Yield the outcomes of a binomial distribution within nine standard deviations, with their probabilities."""
    margin = 9 * math.sqrt(trials * share * (1 - share)) + 1
    for k in range(max(0, math.floor(trials * share - margin)), min(trials, math.ceil(trials * share + margin)) + 1):
        yield k, _binomial(k, trials, share)


def _binomial(k: int, trials: int, share: float) -> float:
    if share in (0.0, 1.0):
        return float(k == trials * share)
    combinations = math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
    return math.exp(combinations + k * math.log(share) + (trials - k) * math.log1p(-share))


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


def _calibrated(error: float, threshold: float) -> dict[str, Any]:
    passed = error <= threshold
    than = "not above" if passed else "above"
    statement = f"calibration error {error:.4f} is {than} max_calibration_error {threshold}"
    return _check("max_calibration_error", passed, error, threshold, statement)


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
