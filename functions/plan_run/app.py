"""PlanRun: validates a run's input and data set, puts the job code in place and leaves the plan in S3.

Event: {"execution_arn": ..., "input": the execution's input}; or, for another attempt at a job that ended before the
execution was redriven, {"execution_arn": ..., "plan_uri": ..., "state": the job's state,
"training_job": the latest training}. Answer: {"plan_uri": s3://
URI of plan.json, "plan": the plan without the data set's counts, which with many classes would not fit 256 KiB}.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import bundles
import cost
import documents
import endpoints
import images
import instance_types
import job_requests
import plan
import run_input
from botocore.exceptions import ClientError
from dataset import survey
from invocation import client, log

PUT_ATTEMPTS = 5


class CodeUploadConflict(Exception):
    """Other runs kept uploading the same job code at the same moment. The run can be started again."""


@dataclass(frozen=True)
class Settings:
    stack: plan.Stack
    instances: dict[str, str]
    scaling: dict[str, int]
    endpoint_deadline_seconds: int
    training_images: images.Images
    serving_images: images.Images


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    if "plan_uri" in event:
        return next_attempt(event, context)
    settings = settings_from(os.environ)
    log(event["execution_arn"], context).info("planning", extra={"input": event["input"]})
    completed = run_input.complete(event["input"], settings.stack.name_prefix, settings.instances, settings.scaling)
    chosen_images = images.chosen(completed["instances"], settings.training_images, settings.serving_images)
    needed = plan.deploy_seconds(completed["serving"])
    run_input.check_deploy_seconds(completed, needed, settings.endpoint_deadline_seconds)
    s3, sagemaker = client("s3"), client("sagemaker")
    optimised = completed["serving"]["variant"] != "float32"
    instance_types.check(completed["instances"], optimised, *known_instance_types(sagemaker))
    if settings.stack.account.isolated:
        check_offline(s3, settings.stack.bucket, completed)
    shares = {"valid": completed["data"]["valid_share"], "test": completed["data"]["test_share"]}
    surveyed = survey(s3, completed["dataset"], shares)
    run_input.check_batch_sizes(completed, surveyed["splits"]["train"]["images"])
    bucket = settings.stack.bucket
    found = plan.Found(
        images=chosen_images,
        dataset=surveyed,
        training_code_sha256=upload(s3, bucket, "training_code", plan.training_code_key),
        inference_code_sha256=upload(s3, bucket, "inference_code", plan.inference_code_key),
        weights_etag=weights_etag(s3, completed["model"]["weights"]),
        previous_endpoint_config=live_config(sagemaker, completed["endpoint_name"]),
    )
    created_at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    made = plan.make(completed, event["execution_arn"], created_at, settings.stack, found)
    cost.check_budget(made["cost"], completed.get("budget_usd"))
    plan_uri = f"s3://{bucket}/{made['prefix']}/plan.json"
    s3.put_object(
        Bucket=bucket,
        Key=f"{made['prefix']}/input.json",
        Body=json.dumps(event["input"], indent=2, ensure_ascii=False).encode(),
        ContentType="application/json",
    )
    documents.write(s3, plan_uri, "plan", made)
    return answer(plan_uri, made)


def next_attempt(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Give one job another name, everywhere in the plan: SageMaker takes no name twice."""
    s3 = client("s3")
    made = plan.renumbered(documents.read(s3, event["plan_uri"], "plan"), event["state"], event["training_job"])
    log(event["execution_arn"], context).info("another attempt", extra={"names": made["names"]})
    documents.write(s3, event["plan_uri"], "plan", made)
    return answer(event["plan_uri"], made)


def answer(plan_uri: str, made: dict[str, Any]) -> dict[str, Any]:
    return {"plan_uri": plan_uri, "plan": {**made, "dataset": {"uri": made["dataset"]["uri"]}}}


def settings_from(environment: Mapping[str, str]) -> Settings:
    stack = plan.Stack(
        bucket=environment["BUCKET"],
        region=environment["AWS_REGION"],
        name_prefix=environment["NAME_PREFIX"],
        feature_days=int(environment["FEATURE_DAYS"]),
        account=job_requests.Account(
            job_role=environment["JOB_ROLE_ARN"],
            evaluation_role=environment["EVALUATION_ROLE_ARN"],
            serving_role=environment["SERVING_ROLE_ARN"],
            volume_size_gb=int(environment["JOB_VOLUME_SIZE_GB"]),
            debugger_rules_image=environment["DEBUGGER_RULES_IMAGE_URI"],
            subnets=tuple(filter(None, environment["SUBNET_IDS"].split(","))),
            security_groups=tuple(filter(None, environment["SECURITY_GROUP_IDS"].split(","))),
            isolated=environment["NETWORK_ISOLATION"] == "true",
            key_arn=environment["KMS_KEY_ARN"],
            tags=dict(tag.split("=", 1) for tag in environment["COST_TAGS"].split(",") if tag),
        ),
    )
    instances = {
        "prepare": environment["PREPARE_INSTANCE_TYPE"],
        "tune": environment["TUNE_INSTANCE_TYPE"],
        "train": environment["TRAIN_INSTANCE_TYPE"],
        "evaluate": environment["EVALUATE_INSTANCE_TYPE"],
        "endpoint": environment["ENDPOINT_INSTANCE_TYPE"],
    }
    scaling = {
        "max_instance_count": int(environment["ENDPOINT_MAX_INSTANCE_COUNT"]),
        "invocations_per_instance": int(environment["ENDPOINT_INVOCATIONS_PER_INSTANCE"]),
    }
    return Settings(
        stack,
        instances,
        scaling,
        int(environment["ENDPOINT_DEADLINE_SECONDS"]),
        images.Images(environment["TRAINING_IMAGE_URI"], environment["TRAINING_GPU_IMAGE_URI"], "TrainingImageUri"),
        images.Images(environment["SERVING_IMAGE_URI"], None, "ServingImageUri"),
    )


def known_instance_types(sagemaker: Any) -> tuple[list[str], list[str]]:
    """Return the types for jobs and for endpoints in the SDK's model of SageMaker."""
    model = sagemaker.meta.service_model
    return model.shape_for("TrainingInstanceType").enum, model.shape_for("ProductionVariantInstanceType").enum


def upload(s3: Any, bucket: str, folder: str, key_of: Any) -> str:
    """Put a bundle at its content's address unless it is there already; return its SHA-256."""
    bundle = bundles.pack(bundles.JOB_CODE / folder)
    for _ in range(PUT_ATTEMPTS):
        try:
            s3.put_object(Bucket=bucket, Key=key_of(bundle.sha256), Body=bundle.body, IfNoneMatch="*")
            return bundle.sha256
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code == "PreconditionFailed":
                return bundle.sha256
            if code != "ConditionalRequestConflict":
                raise
    raise CodeUploadConflict(f"s3://{bucket}/{key_of(bundle.sha256)} is being written by others; start the run again")


def check_offline(s3: Any, bucket: str, completed: dict[str, Any]) -> None:
    """Raise InvalidInput where a job would need what a container without a network cannot fetch."""
    if completed["model"]["weights"] == "default":
        raise run_input.InvalidInput(
            "model.weights: 'default' is downloaded from the internet, but this stack's jobs have no network "
            "(NetworkIsolation): name a file in S3, or 'none' to train from scratch"
        )
    if not s3.list_objects_v2(Bucket=bucket, Prefix="wheels/", MaxKeys=1).get("Contents"):
        raise run_input.InvalidInput(
            f"s3://{bucket}/wheels/ is empty, but this stack's jobs have no network (NetworkIsolation) to install what "
            "they need: `make wheels BUCKET=...` puts it there"
        )


def weights_etag(s3: Any, weights: str) -> str | None:
    """Return the ETag of the weights' object, or None if they are not in S3. Raises InvalidInput."""
    if not weights.startswith("s3://"):
        return None
    bucket, key = documents.split_uri(weights)
    try:
        return s3.head_object(Bucket=bucket, Key=key)["ETag"]
    except ClientError as error:
        code = error.response["Error"]["Code"]
        raise run_input.InvalidInput(
            f"model.weights: {weights} cannot be read ({code}): it must exist, in the stack's own bucket "
            "or in the one that the stack was given as DatasetBucketName"
        ) from error


def live_config(sagemaker: Any, endpoint_name: str) -> str | None:
    """Return the configuration that an endpoint runs, or None if there is no such endpoint."""
    live = endpoints.described(sagemaker, endpoint_name)
    return live["EndpointConfigName"] if live else None
