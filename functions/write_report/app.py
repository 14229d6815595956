"""WriteReport: one page and one summary of a run, whether it succeeded or failed, from whatever it left.

Event: {"execution_arn": ..., "failure": {"State", "Error", "Cause"} and perhaps "RollBack", if it failed}.
Answer: {"report": s3:// URI of the page, "summary": s3:// URI, "error", "cause"}: error and cause are null unless the
run failed, the URIs are null if it failed and could not be reported on.
"""

import hashlib
import os
from datetime import datetime
from typing import Any

import documents
from botocore.exceptions import ClientError
from failure import Failure, explain
from invocation import client, log
from page import render

DOCUMENTS = ("leaderboard", "debugger_review", "verdict", "verification")


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    failure = explain(event["failure"]) if event.get("failure") else None
    logger = log(event["execution_arn"], context)
    logger.info("reporting", extra={"failure": failure})
    uris: dict[str, str | None] = {"report": None, "summary": None}
    try:
        uris |= report(client("s3"), client("stepfunctions"), os.environ["BUCKET"], event["execution_arn"], failure)
    except (ClientError, documents.DocumentInvalid):
        # A run that failed still ends with its own failure, readable, where no page can be written.
        if failure is None:
            raise
        logger.exception("no report")
    return {**uris, "error": failure.error if failure else None, "cause": failure.cause if failure else None}


def report(s3: Any, stepfunctions: Any, bucket: str, execution_arn: str, failure: Failure | None) -> dict[str, str]:
    """Write page and summary and return their URIs."""
    run_id = hashlib.sha256(execution_arn.encode()).hexdigest()[:12]
    run_uri = f"s3://{bucket}/runs/{run_id}"
    left, unread = left_by(s3, run_uri)
    summary = summarise(run_id, execution_arn, failure, left, states_of(stepfunctions, execution_arn))
    documents.write(s3, f"{run_uri}/report/summary.json", "summary", summary)
    s3.put_object(
        Bucket=bucket,
        Key=f"runs/{run_id}/report/index.html",
        Body=render(summary, left, unread).encode(),
        ContentType="text/html; charset=utf-8",
    )
    return {"report": f"{run_uri}/report/index.html", "summary": f"{run_uri}/report/summary.json"}


def left_by(s3: Any, run_uri: str) -> tuple[dict[str, Any], list[str]]:
    """Return the documents that a run left, by contract, and what could not be read, in sentences."""
    left: dict[str, Any] = {}
    unread: list[str] = []
    locations = {"plan": f"{run_uri}/plan.json"} | {name: f"{run_uri}/{name}.json" for name in DOCUMENTS}
    _read_into(left, unread, s3, locations)
    if "plan" in left:
        _read_into(left, unread, s3, {"evaluation": left["plan"]["locations"]["evaluation"]})
    return left, unread


def states_of(stepfunctions: Any, execution_arn: str) -> list[dict[str, Any]]:
    """Return the states in the order in which they were entered, with seconds and visits summed over their visits.

    A state that is not left yet, which is the one that writes this, has its seconds null.
    """
    states: dict[str, dict[str, Any]] = {}
    entered: dict[str, datetime] = {}
    pages = stepfunctions.get_paginator("get_execution_history").paginate(
        executionArn=execution_arn, includeExecutionData=False
    )
    for event in (event for page in pages for event in page["events"]):
        if details := event.get("stateEnteredEventDetails"):
            state = states.setdefault(details["name"], {"name": details["name"], "seconds": None, "visits": 0})
            state["visits"] += 1
            entered[details["name"]] = event["timestamp"]
        elif details := event.get("stateExitedEventDetails"):
            state = states[details["name"]]
            spent = (event["timestamp"] - entered[details["name"]]).total_seconds()
            state["seconds"] = round((state["seconds"] or 0) + spent, 3)
    return list(states.values())


def summarise(
    run_id: str, execution_arn: str, failure: Failure | None, left: dict[str, Any], states: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the summary. What the run did not come to is null."""
    leaderboard = left.get("leaderboard", {"trials": [], "chosen": None})
    plan, evaluation = left.get("plan"), left.get("evaluation")
    return {
        "version": 1,
        "run_id": run_id,
        "execution_arn": execution_arn,
        "status": "failed" if failure else "succeeded",
        "state": failure.state if failure else None,
        "error": failure.error if failure else None,
        "cause": failure.cause if failure else None,
        "endpoint": plan["names"]["endpoint"] if plan else None,
        "verified": left.get("verification", {"verified": False})["verified"],
        "test_accuracy": evaluation["accuracy"] if evaluation else None,
        "chosen": leaderboard["chosen"],
        "trials": len(leaderboard["trials"]),
        "states": states,
    }


def _read_into(left: dict[str, Any], unread: list[str], s3: Any, locations: dict[str, str]) -> None:
    for name, uri in locations.items():
        try:
            left[name] = documents.read(s3, uri, name)
        except documents.DocumentMissing:
            continue
        except documents.DocumentInvalid as error:
            unread.append(str(error))
