"""RecoverDeploy: cleans up after an execution that ended while a job of its ran, or while it held an endpoint's lock.

StopExecution and time-outs run no Catch: an EventBridge rule on the execution's end calls this, and so does the next
run that takes the lock over. It waits until the endpoint stands still, restores the champion if the configuration of
the run that ended is live, asks it an image that it knows, has auto scaling take it up again, and gives the lock back.
Called again, it does no harm.

Event: {"detail": {"executionArn": the execution that ended}}. Answer: {"outcome": what was done, in a word or two}.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import documents
import endpoints
from botocore.exceptions import ClientError
from invocation import client, log

MOVING = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
POLL_SECONDS = 2.0
MILLISECONDS_TO_END = 15_000
"""What is left of the function's time when it stops waiting."""
UNLOCK_ATTEMPTS = 5


class EndpointStillMoves(Exception):
    """The endpoint did not stand still in the function's time. Lambda calls again; so does the next run."""


class ChampionNotRestored(Exception):
    """The endpoint does not run, or does not answer as, its champion. The message says what to do."""


class FormerConfigGone(ChampionNotRestored):
    """What was to be restored is deleted. No call can bring it back, so that the lock is given back all the same."""


def handler(event: dict[str, Any], context: Any) -> dict[str, str]:
    execution_arn, bucket, s3 = event["detail"]["executionArn"], os.environ["BUCKET"], client("s3")
    run_id = hashlib.sha256(execution_arn.encode()).hexdigest()[:12]
    logger = log(execution_arn, context)
    try:
        plan = documents.read(s3, f"s3://{bucket}/runs/{run_id}/plan.json", "plan")
    except documents.DocumentMissing:
        return {"outcome": "never planned"}
    if endpoints.is_running(client("stepfunctions"), execution_arn):
        return {"outcome": "runs again: it was redriven"}
    stop_jobs(client("sagemaker"), plan["run_id"])
    folder = endpoints.folder_of(plan)
    lock, _ = endpoints.read_lock(s3, folder)
    if execution_arn not in (lock["owner"], lock["left_by"]):
        return {"outcome": "held no lock"}
    champion, patience = endpoints.read_champion(s3, folder), Patience(context)
    try:
        outcome = recover(s3, plan, champion, patience)
    except FormerConfigGone:
        unlock(s3, folder, execution_arn)
        raise
    if champion:
        restore_scaling(champion, patience)
    unlock(s3, folder, execution_arn)
    logger.info("recovered", extra={"outcome": outcome, "endpoint": plan["names"]["endpoint"]})
    return {"outcome": outcome}


def stop_jobs(sagemaker: Any, run_id: str) -> None:
    """Stop jobs that nobody waits for: a run that is stopped while it waits for an adopted job leaves it.

    A tuning job comes first: it stops its own trials, and starts no others.
    """
    tuning = sagemaker.get_paginator("list_hyper_parameter_tuning_jobs").paginate(
        NameContains=run_id, StatusEquals="InProgress"
    )
    for name in [
        job["HyperParameterTuningJobName"] for page in tuning for job in page["HyperParameterTuningJobSummaries"]
    ]:
        with gone_is_as_good():
            sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    training = sagemaker.get_paginator("list_training_jobs").paginate(NameContains=run_id, StatusEquals="InProgress")
    for name in [job["TrainingJobName"] for page in training for job in page["TrainingJobSummaries"]]:
        with gone_is_as_good():
            sagemaker.stop_training_job(TrainingJobName=name)


@contextlib.contextmanager
def gone_is_as_good() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationException":  # SageMaker's for what has ended, or is gone
            raise


class Patience:
    """Waits between looks until the function's time is nearly over. Raises EndpointStillMoves then."""

    def __init__(self, context: Any):
        self._remaining_milliseconds = context.get_remaining_time_in_millis

    def wait(self, what: str) -> None:
        if self._remaining_milliseconds() < MILLISECONDS_TO_END:
            raise EndpointStillMoves(what)
        time.sleep(POLL_SECONDS)


def recover(s3: Any, plan: dict[str, Any], champion: dict[str, Any] | None, patience: Patience) -> str:
    """Bring the endpoint back to what it ran before the run, and return what was done. Raises ChampionNotRestored."""
    sagemaker, endpoint, ours = client("sagemaker"), plan["names"]["endpoint"], plan["names"]["endpoint_config"]
    live = settled(sagemaker, endpoint, patience)
    if live is None or live["EndpointConfigName"] != ours:
        return "nothing to restore"
    if champion and champion["endpoint_config"] == ours:
        return "the run's own model is the champion"
    former = former_config(plan, champion)
    if former is None:
        with gone_is_as_good():
            sagemaker.delete_endpoint(EndpointName=endpoint)
        return "deleted the endpoint that the run created"
    if live["EndpointStatus"] != "InService":
        raise ChampionNotRestored(
            f"the endpoint {endpoint} is {live['EndpointStatus']} on {ours} and cannot be updated to {former}: "
            "delete it, and create it with that configuration"
        )
    check_config(sagemaker, endpoint, former, ours)
    refusal = None
    try:
        sagemaker.update_endpoint(EndpointName=endpoint, EndpointConfigName=former, **plan["scaling"]["retained"])
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationException":
            raise
        refusal = error  # as good, if it is because another call has done the same since the last look
    live = settled(sagemaker, endpoint, patience)
    if live is None or (live["EndpointStatus"], live["EndpointConfigName"]) != ("InService", former):
        raise ChampionNotRestored(
            f"the endpoint {endpoint} was to be updated to {former}, but is "
            f"{live and live['EndpointStatus']} on {live and live['EndpointConfigName']}"
            + (f": {refusal}" if refusal else "")
        ) from refusal
    if champion:
        check_weights(s3, champion)
    return f"restored {former}"


def former_config(plan: dict[str, Any], champion: dict[str, Any] | None) -> str | None:
    """Return what the endpoint ran before the run, None if it was not there: a champion from before such a plan served
    on an endpoint that somebody has deleted since."""
    if champion is None or (plan["previous_endpoint_config"] is None and champion["since"] < plan["created_at"]):
        return plan["previous_endpoint_config"]
    return champion["endpoint_config"]


def check_config(sagemaker: Any, endpoint: str, former: str, ours: str) -> None:
    """Raise FormerConfigGone if there is no such configuration any more."""
    try:
        sagemaker.describe_endpoint_config(EndpointConfigName=former)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationException":  # SageMaker's answer for what is not there
            raise
        raise FormerConfigGone(
            f"the endpoint {endpoint} runs {ours}, of a run that ended before its model was verified, and the "
            f"configuration {former} that it ran before is gone: start a new run, or delete the endpoint"
        ) from error


def settled(sagemaker: Any, endpoint: str, patience: Patience) -> dict[str, Any] | None:
    """Return the endpoint when it stands still, or None if there is none."""
    while True:
        live = endpoints.described(sagemaker, endpoint)
        if live is None or live["EndpointStatus"] not in MOVING:
            return live
        patience.wait(f"the endpoint {endpoint} is still {live['EndpointStatus']}")


def check_weights(s3: Any, champion: dict[str, Any]) -> None:
    """Ask the endpoint a test image of the champion's. Raises ChampionNotRestored if other weights answer."""
    sample = documents.read(s3, champion["evaluation"], "evaluation")["samples"][0]
    bucket, evaluation_key = documents.split_uri(champion["evaluation"])
    image = s3.get_object(Bucket=bucket, Key=f"{evaluation_key.rpartition('/')[0]}/{sample['file']}")["Body"].read()
    content_type = "image/png" if sample["path"].lower().endswith(".png") else "image/jpeg"
    answer = client("sagemaker-runtime").invoke_endpoint(
        EndpointName=champion["endpoint"], ContentType=content_type, Accept="application/json", Body=image
    )
    weights = json.loads(answer["Body"].read())["model"]["weights_sha256"]
    if weights != champion["weights_sha256"]:
        raise ChampionNotRestored(
            f"the endpoint {champion['endpoint']} serves the weights {weights}, not {champion['weights_sha256']}"
        )


def restore_scaling(champion: dict[str, Any], patience: Patience) -> None:
    """Register the champion with auto scaling as it was, if it had that and is live: the run had released it."""
    live = settled(client("sagemaker"), champion["endpoint"], patience)
    if live is None or live["EndpointConfigName"] != champion["endpoint_config"]:
        return
    if "target" in champion["scaling"]:
        client("application-autoscaling").register_scalable_target(**champion["scaling"]["target"])
        client("application-autoscaling").put_scaling_policy(**champion["scaling"]["policy"])


def unlock(s3: Any, folder: str, execution_arn: str) -> None:
    """Take the execution's name out of the lock. Raises LockContended."""
    for _ in range(UNLOCK_ATTEMPTS):
        lock, etag = endpoints.read_lock(s3, folder)
        if execution_arn not in (lock["owner"], lock["left_by"]):
            return
        lock |= {name: None for name in ("owner", "left_by") if lock[name] == execution_arn}
        if endpoints.write_lock(s3, folder, lock, etag):
            return
    raise endpoints.LockContended(f"{folder}/lock.json was written by others {UNLOCK_ATTEMPTS} times in a row")
