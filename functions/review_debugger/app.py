"""ReviewDebugger: the debugger's findings to a verdict on the training, and to what a training again would change.

Event: {"plan_uri", "training": the attempt (attempt, job, checkpoints, hyperparameters), "attempts": those reviewed
before it, "failed": whether its job failed, "late": whether managed rules are waited for no more}. Answer: the review,
contracts/debugger_review.schema.json; or only {"verdict": "failed"} for a job that failed for reasons that no finding
tells; or {"verdict": "wait"} while managed rules are still being evaluated.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import documents
from invocation import client, log
from managed import findings_of, statuses_of
from steering import Attempt, review

EVENTS_PER_REQUEST = 10
"""https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html"""


class EventsRefused(Exception):
    """EventBridge did not take the events of the issues that were found."""


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    s3 = client("s3")
    plan = documents.read(s3, event["plan_uri"], "plan")
    training = Attempt(**event["training"])
    logger = log(plan["execution_arn"], context)
    try:
        findings = documents.read(s3, f"{training.checkpoints}findings.json", "findings")
    except documents.DocumentMissing:
        if event["failed"]:
            return {"verdict": "failed"}
        raise
    request = plan["requests"]["train"]
    statuses = statuses_of(client("sagemaker"), training.job) if "DebugRuleConfigurations" in request else []
    if not event["late"] and "InProgress" in [status["status"] for status in statuses]:
        return {"verdict": "wait"}
    if event["failed"] and not findings["stopped"]:
        return {"verdict": "failed"}
    policy, given = plan["input"]["debugger"], request["HyperParameters"]
    verdict = review(findings, findings_of(statuses), training, event["attempts"], policy, given)
    logger.info("reviewed", extra={"verdict": verdict["verdict"], "reason": verdict["reason"]})
    documents.write(s3, f"s3://{plan['bucket']}/{plan['prefix']}/debugger_review.json", "debugger_review", verdict)
    announce(client("events"), plan, verdict)
    return verdict


def announce(events: Any, plan: dict[str, Any], verdict: dict[str, Any]) -> None:
    """Put an event for each issue. Raises EventsRefused."""
    entries = list(issue_events(plan, verdict))
    for start in range(0, len(entries), EVENTS_PER_REQUEST):
        answer = events.put_events(Entries=entries[start : start + EVENTS_PER_REQUEST])
        if answer["FailedEntryCount"]:
            raise EventsRefused(json.dumps(answer["Entries"]))


def issue_events(plan: dict[str, Any], verdict: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield an event for each IssuesFound; its id is the same however often a review is repeated."""
    for finding in verdict["findings"]:
        if finding["status"] == "IssuesFound":
            named = f"{verdict['job']} {finding['source']} {finding['rule']}"
            detail = {
                "id": hashlib.sha256(named.encode()).hexdigest(),
                "run_id": plan["run_id"],
                "execution_arn": plan["execution_arn"],
                "job": verdict["job"],
                "verdict": verdict["verdict"],
                **{name: finding[name] for name in ("rule", "source", "step", "tensor", "values", "message")},
            }
            yield {
                "Source": "kelpie",
                "DetailType": "DebuggerIssueFound",
                "Resources": [plan["execution_arn"]],
                "Detail": json.dumps(detail),
            }
