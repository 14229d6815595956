"""ReviewDebugger: the debugger's findings to a verdict on the training.

Event: {"plan_uri": ...}. Answer: the review, contracts/debugger_review.schema.json.
"""

from typing import Any

import documents
from invocation import client, log

STOPPING_RULES = ("ExplodingTensor",)
"""Rules whose issue means that the weights are worthless; what the others find is told, and the gate decides."""


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    s3 = client("s3")
    plan = documents.read(s3, event["plan_uri"], "plan")
    findings = documents.read(s3, f"{plan['locations']['train_checkpoints']}findings.json", "findings")
    verdict = review(findings, hooks_wanted=plan["input"]["debugger"]["enabled"])
    log(plan["execution_arn"], context).info("reviewed", extra={"verdict": verdict["verdict"]})
    documents.write(s3, f"s3://{plan['bucket']}/{plan['prefix']}/debugger_review.json", "debugger_review", verdict)
    return verdict


def review(findings: dict[str, Any], hooks_wanted: bool) -> dict[str, Any]:
    """Return the verdict, accept or stop, and its reason in sentences."""
    entries = findings["findings"]
    issues = [entry for entry in entries if entry["status"] == "IssuesFound"]
    errors = [entry for entry in entries if entry["status"] == "Error"]
    stopping = [entry for entry in issues if entry["rule"] in STOPPING_RULES]
    if not entries:
        nothing = "The debugger left no finding, though it was on." if hooks_wanted else "The debugger was off."
        verdict, reason = "accept", nothing
    elif stopping:
        verdict, reason = "stop", _told(stopping)
    elif issues or errors:
        verdict, reason = "accept", f"Accepted with warnings. {_told(issues + errors)}"
    else:
        verdict, reason = "accept", f"{len(entries)} rules ran and found no issue."
    return {"version": 1, "job": findings["job"], "verdict": verdict, "reason": reason, "findings": entries}


def _told(entries: list[dict[str, Any]]) -> str:
    return " ".join(f"{entry['rule']} ({entry['status']}): {entry['message']}" for entry in entries)
