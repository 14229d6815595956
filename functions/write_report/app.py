"""WriteReport: one page and one summary of a run, whether it succeeded or failed, from whatever it left.

Event: {"execution_arn": ..., "model_package_arn": ... if it succeeded, "failure": {"State", "Error", "Cause"} and
perhaps "RollBack", if it failed}.
Answer: {"report": s3:// URI of the page, "summary": s3:// URI, "error", "cause"}: error and cause are null unless the
run failed, the URIs are null if it failed and could not be reported on.
"""

import hashlib
import json
import os
from typing import Any

import documents
from botocore.exceptions import BotoCoreError, ClientError
from failure import Failure, explain
from history import Course, read_course
from invocation import client, log
from left import gather
from page import render, render_profile
from run import Run


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    failure = explain(event["failure"]) if event.get("failure") else None
    logger = log(event["execution_arn"], context)
    logger.info("reporting", extra={"failure": failure})
    uris: dict[str, str | None] = {"report": None, "summary": None}
    try:
        uris |= report(client("s3"), client("stepfunctions"), client("sagemaker"), client("logs"), event, failure)
    except (BotoCoreError, ClientError, documents.DocumentInvalid):
        # A run that failed still ends with its own failure, readable, where no page can be written.
        if failure is None:
            raise
        logger.exception("no report")
    return {**uris, "error": failure.error if failure else None, "cause": failure.cause if failure else None}


def report(
    s3: Any, stepfunctions: Any, sagemaker: Any, logs: Any, event: dict[str, Any], failure: Failure | None
) -> dict[str, str]:
    """Write the pages and the summary and return the URIs of the run's page and of the summary."""
    execution_arn = event["execution_arn"]
    run_id = hashlib.sha256(execution_arn.encode()).hexdigest()[:12]
    run_uri = f"s3://{os.environ['BUCKET']}/runs/{run_id}"
    left = gather(s3, sagemaker, logs, run_uri, failure)
    course, definition = course_of(stepfunctions, execution_arn), definition_of(stepfunctions, execution_arn)
    run = Run(run_id, execution_arn, event.get("model_package_arn"), failure, course, definition, left)
    documents.write(s3, f"{run_uri}/report/summary.json", "summary", summarise(run))
    _put_page(s3, f"{run_uri}/report/index.html", render(run))
    if profile := render_profile(run):
        _put_page(s3, f"{run_uri}/report/profiler-report.html", profile)
    return {"report": f"{run_uri}/report/index.html", "summary": f"{run_uri}/report/summary.json"}


def _put_page(s3: Any, uri: str, page: str) -> None:
    bucket, key = documents.split_uri(uri)
    s3.put_object(Bucket=bucket, Key=key, Body=page.encode(), ContentType="text/html; charset=utf-8")


def course_of(stepfunctions: Any, execution_arn: str) -> Course:
    """Return what the execution has done so far; the state that asks is not left yet."""
    pages = stepfunctions.get_paginator("get_execution_history").paginate(
        executionArn=execution_arn, includeExecutionData=False
    )
    return read_course(event for page in pages for event in page["events"])


def definition_of(stepfunctions: Any, execution_arn: str) -> dict[str, Any]:
    """Return the state machine as this execution runs it, whatever has been deployed since it began."""
    described = stepfunctions.describe_state_machine_for_execution(executionArn=execution_arn)
    definition: dict[str, Any] = json.loads(described["definition"])
    return definition


def summarise(run: Run) -> dict[str, Any]:
    """Return the summary. What the run did not come to is null."""
    leaderboard, plan, evaluation = run.document("leaderboard"), run.plan, run.document("evaluation")
    return {
        "version": 1,
        "run_id": run.run_id,
        "execution_arn": run.execution_arn,
        "status": "failed" if run.failure else "succeeded",
        "state": run.failure.state if run.failure else None,
        "error": run.failure.error if run.failure else None,
        "cause": run.failure.cause if run.failure else None,
        "endpoint": plan.get("names", {}).get("endpoint"),
        "verified": bool(run.document("verification").get("verified")),
        "test_accuracy": evaluation.get("accuracy"),
        "chosen": leaderboard.get("chosen"),
        "trials": len(leaderboard.get("trials", [])),
        "states": [{"name": one.name, "seconds": one.seconds, "visits": one.visits} for one in run.course.states],
    }
