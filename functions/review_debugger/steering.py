"""What the debugger's findings come to: accept a training, train again with something changed, or stop. Pure.

Which rule leads to what is `debugger.actions` of the execution input, what a change is, `debugger.changes`; how often,
`debugger.max_retrains`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WORST_FIRST = ("stop", "lower_learning_rate", "raise_learning_rate", "freeze_more", "regularise")
CONDEMNING = ("stop", "lower_learning_rate", "raise_learning_rate")
"""After the last attempt an issue with one of these stops the run: the weights are worth nothing. One that asks for
more regularisation, or for fewer layers, is told, and the gate decides."""
LESS_UNFROZEN = {"all": "last_stage", "last_stage": "head"}
HIGHEST_WEIGHT_DECAY, HIGHEST_DROPOUT = 100.0, 0.95
"""Of train.py's options."""


@dataclass(frozen=True)
class Attempt:
    """A training: its number from 1, job, s3:// folder of checkpoints, and the values that it was given of its own.

    The job's name may end in a higher number: a redriven run's training takes another name, but is the same attempt.
    """

    attempt: int
    job: str
    checkpoints: str
    hyperparameters: dict[str, str]


def review(
    findings: dict[str, Any],
    others: Sequence[dict[str, Any]],
    training: Attempt,
    before: Sequence[dict[str, Any]],
    policy: dict[str, Any],
    given: dict[str, str],
) -> dict[str, Any]:
    """Return the review of a training, as contracts/debugger_review.schema.json has it.

    findings: findings.json; others: what the profiler's and the managed rules found;
    before: the attempts of earlier reviews; policy: the execution input's `debugger`; given: the training's other
    hyperparameters, from which a change starts.
    """
    entries = [*findings["findings"], *others]
    issues = [entry for entry in entries if entry["status"] == "IssuesFound"]
    action, deciding = _what_follows(issues, policy["actions"], findings["stopped"])
    following = None
    if action in ("warn", "stop"):
        verdict = "accept" if action == "warn" else "stop"
        reason = _told(deciding) if action == "stop" else _accepted(findings["findings"], others, policy["enabled"])
    elif training.attempt <= policy["max_retrains"]:
        changed, said = change(action, {**given, **training.hyperparameters}, policy["changes"])
        following = _next(training, changed)
        verdict, reason = "retrain", f"{_told(deciding)} Training again {said}."
    else:
        verdict = "stop" if action in CONDEMNING or findings["stopped"] else "accept"
        attempts = f"after {training.attempt} trainings, of which debugger.max_retrains allows no more"
        reason = f"{'Stopped' if verdict == 'stop' else 'Accepted with warnings'} {attempts}. {_told(deciding)}"
    attempt = {**vars(training), "verdict": verdict, "reason": reason}
    return {
        "version": 1,
        "job": training.job,
        "verdict": verdict,
        "reason": reason,
        "attempts": [*before, attempt],
        "findings": entries,
        "next": vars(following) if following else None,
    }


def change(action: str, values: dict[str, str], changes: dict[str, Any]) -> tuple[dict[str, str], str]:
    """Return the hyperparameters that an action changes, and what that is in words.

    Where nothing is left to freeze, freeze_more is regularise.
    """
    less = LESS_UNFROZEN.get(values["unfreeze"]) if values["mode"] == "frozen_features" else None
    if action == "freeze_more" and less:
        # The head alone is trained for as long as it was in the trials.
        texts = {"unfreeze": less} | ({"epochs": values["head_epochs"]} if less == "head" else {})
    elif action in ("freeze_more", "regularise"):
        decay = float(values["weight_decay"]) * changes["weight_decay_factor"]
        dropout = float(values["dropout"]) + changes["dropout_added"]
        texts = {
            "weight_decay": f"{min(decay, HIGHEST_WEIGHT_DECAY):.6g}",
            "dropout": f"{min(dropout, HIGHEST_DROPOUT):.6g}",
        }
    else:
        factor = changes["learning_rate_factor"]
        # Not learning_rate, of which fine-tuning takes a share within bounds.
        scale = float(values["learning_rate_scale"]) * (factor if action == "raise_learning_rate" else 1 / factor)
        texts = {"learning_rate_scale": f"{scale:.6g}"}
    said = " and ".join(f"{name} {text} (was {_short(values[name])})" for name, text in texts.items())
    of_all = ", which multiplies the learning rate of every phase" if "learning_rate_scale" in texts else ""
    return texts, f"with {said}{of_all}"


def _short(value: str) -> str:
    try:
        return f"{float(value):.6g}"
    except ValueError:
        return value


def _what_follows(
    issues: list[dict[str, Any]], actions: dict[str, str], stopped: dict[str, Any] | None
) -> tuple[str, list[dict[str, Any]]]:
    """Return the action of the worst issue, and the issues that ask for it."""
    by_action: dict[str, list[dict[str, Any]]] = {}
    for issue in issues:
        by_action.setdefault(actions.get(issue["rule"], "warn"), []).append(issue)
    for action in WORST_FIRST:
        if action in by_action:
            return action, by_action[action]
    if stopped:  # there is no model to accept, whatever the table says
        return "stop", [issue for issue in issues if issue["rule"] == stopped["rule"]] or [_as_issue(stopped)]
    return "warn", issues


def _next(training: Attempt, changed: dict[str, str]) -> Attempt:
    """Return the next attempt, under a name and in a folder of its own."""
    base, _, number = training.job.rpartition("-")
    job = f"{base}-{int(number) + 1}"
    checkpoints = f"{training.checkpoints.rstrip('/').rpartition('/')[0]}/{job}/"
    return Attempt(training.attempt + 1, job, checkpoints, {**training.hyperparameters, **changed})


def _as_issue(stopped: dict[str, Any]) -> dict[str, Any]:
    return {"rule": stopped["rule"], "status": "IssuesFound", "message": stopped["message"]}


def _accepted(debugged: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], hooks_wanted: bool) -> str:
    entries = [*debugged, *others]
    told = [entry for entry in entries if entry["status"] != "NoIssuesFound"]
    said = []
    if not debugged:
        said.append("The debugger left no finding, though it was on." if hooks_wanted else "The debugger was off.")
    if told:
        said.append(f"Accepted with warnings. {_told(told)}")
    elif entries:
        said.append(f"{len(entries)} rules ran and found no issue.")
    return " ".join(said)


def _told(entries: list[dict[str, Any]]) -> str:
    return " ".join(f"{entry['rule']} ({entry['status']}): {entry['message']}" for entry in entries)
