"""ReviewDebugger: the debugger's findings to a verdict on the training, and to what a training again would change.

Event: {"plan_uri", "training": the attempt (attempt, job, checkpoints, hyperparameters), "attempts": those reviewed
before it, "failed": whether its job failed, "late": whether managed rules are waited for no more}. Answer: the review,
contracts/debugger_review.schema.json; or only {"verdict": "failed"} for a job that failed for reasons that no finding
tells; or {"verdict": "wait"} while managed rules are still being evaluated. Each issue is an event, whatever follows.
"""

from typing import Any

import documents
from announcements import announce, events_of
from botocore.config import Config
from invocation import client, log
from managed import findings_of, statuses_of
from steering import Attempt, review


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
    others = [*profiler_findings(s3, training), *findings_of(statuses)]
    once = Config(connect_timeout=2, read_timeout=5, retries={"total_max_attempts": 1})  # announce tries again
    events = client("events", once)
    if event["failed"] and not findings["stopped"]:
        unsent = announce(events, events_of(plan, training.job, "failed", [*findings["findings"], *others]))
        logger.info("failed for another reason", extra={"unannounced": unsent})
        return {"verdict": "failed"}
    policy, given = plan["input"]["debugger"], request["HyperParameters"]
    verdict = review(findings, others, training, event["attempts"], policy, given)
    logger.info("reviewed", extra={"verdict": verdict["verdict"], "reason": verdict["reason"]})
    review_uri = f"s3://{plan['bucket']}/{plan['prefix']}/debugger_review.json"
    documents.write(s3, review_uri, "debugger_review", verdict)
    if unsent := announce(events, events_of(plan, training.job, verdict["verdict"], verdict["findings"])):
        logger.error("events were refused", extra={"unannounced": unsent})
        verdict["unannounced"] = unsent
        documents.write(s3, review_uri, "debugger_review", verdict)
    return verdict


def profiler_findings(s3: Any, training: Attempt) -> list[dict[str, Any]]:
    """Return what the profiler's rules found, nothing if it was off."""
    try:
        profile = documents.read(s3, f"{training.checkpoints}profile.json", "profile")
    except documents.DocumentMissing:
        return []
    return list(profile["findings"])
