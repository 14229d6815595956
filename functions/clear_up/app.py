"""ClearUp: with the stack goes what its runs left, if the stack was told so: jobs, endpoints, models, objects, bucket.

A custom resource of the template: https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref.html
It acts on the stack's deletion alone, and only where OnStackDeletion is Delete. The bucket and the model package group
are retained by their DeletionPolicy, so they are deleted here, once they are empty.
"""

import contextlib
import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError
from invocation import client

RUN_ID = "[0-9a-f]{12}"
GOING_ON = ("InProgress", "Stopping")
MOVING = ("Creating", "Updating", "SystemUpdating", "RollingBack")
POLL_SECONDS = 2.0
LEAST_MILLISECONDS = 20_000
"""What is left of the function's time when it gives up in good order."""

MOST_REASON = 1_000
"""An answer to CloudFormation has at most 4,096 bytes."""


class NotEmptied(Exception):
    """Objects are left. The message says why, and that deleting the stack once more goes on from there."""


def handler(event: dict[str, Any], context: Any) -> None:
    properties, status, reason = event["ResourceProperties"], "SUCCESS", ""
    try:
        if event["RequestType"] == "Delete" and properties["OnStackDeletion"] == "Delete":
            clear_up(properties, context.get_remaining_time_in_millis)
    except Exception as error:  # noqa: BLE001 - CloudFormation waits an hour for an answer that does not come
        Logger().exception("not cleared up")
        status, reason = "FAILED", f"{type(error).__name__}: {error}"[:MOST_REASON]
    answer(event, {"Status": status, "Reason": reason, "PhysicalResourceId": f"contents of {properties['Bucket']}"})


def clear_up(properties: dict[str, str], milliseconds_left: Callable[[], int]) -> None:
    """Delete all that runs left, what costs money first. What is gone already is as good.

    Raises NotEmptied, or what AWS answers.
    """
    prefix, sagemaker = properties["NamePrefix"], client("sagemaker")
    stop_runs(client("stepfunctions"), properties["StateMachineArn"])
    stop_jobs(sagemaker, prefix)
    delete_endpoints(sagemaker, prefix, milliseconds_left)
    delete_models(sagemaker, prefix)
    delete_packages(sagemaker, properties["ModelPackageGroupArn"])
    await_jobs(sagemaker, prefix, milliseconds_left)
    empty(client("s3"), properties["Bucket"], milliseconds_left)


def stop_runs(stepfunctions: Any, state_machine_arn: str) -> None:
    try:
        pages = stepfunctions.get_paginator("list_executions").paginate(
            stateMachineArn=state_machine_arn, statusFilter="RUNNING"
        )
        for execution in [item for page in pages for item in page["executions"]]:
            stepfunctions.stop_execution(executionArn=execution["executionArn"], cause="The stack is deleted.")
    except ClientError as error:
        if error.response["Error"]["Code"] != "StateMachineDoesNotExist":
            raise


def stop_jobs(sagemaker: Any, prefix: str) -> None:
    """Stop what a run left that was stopped while it waited for an adopted job. A tuning job stops its trials."""
    for job in listed(sagemaker.get_paginator("list_hyper_parameter_tuning_jobs"), prefix, StatusEquals="InProgress"):
        with gone_is_as_good():
            sagemaker.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName=job["HyperParameterTuningJobName"])
    for job in listed(sagemaker.get_paginator("list_training_jobs"), prefix, StatusEquals="InProgress"):
        with gone_is_as_good():
            sagemaker.stop_training_job(TrainingJobName=job["TrainingJobName"])


def delete_endpoints(sagemaker: Any, prefix: str, milliseconds_left: Callable[[], int]) -> None:
    """Delete the endpoints that run a configuration of this stack's runs. Raises NotEmptied."""
    for endpoint in listed(sagemaker.get_paginator("list_endpoints"), prefix):
        with gone_is_as_good():
            delete_endpoint(sagemaker, prefix, endpoint["EndpointName"], milliseconds_left)


def delete_endpoint(sagemaker: Any, prefix: str, name: str, milliseconds_left: Callable[[], int]) -> None:
    """Delete an endpoint when it stands still, and look again: RecoverDeploy, which the end of a run that is stopped
    calls, may move or delete it at the same moment.
    """
    while (live := sagemaker.describe_endpoint(EndpointName=name))["EndpointStatus"] != "Deleting":
        if live["EndpointStatus"] not in MOVING:
            if not re.fullmatch(f"{prefix}-{RUN_ID}", live["EndpointConfigName"]):
                return
            release_scaling(live)
            with gone_is_as_good():
                sagemaker.delete_endpoint(EndpointName=name)
        if milliseconds_left() < LEAST_MILLISECONDS:
            raise NotEmptied(f"the endpoint {name} was still {live['EndpointStatus']}: delete the stack once more")
        time.sleep(POLL_SECONDS)


def release_scaling(endpoint: dict[str, Any]) -> None:
    """Have auto scaling let go of the endpoint's variants: its alarms would be paid for when the endpoint is gone."""
    for variant in endpoint.get("ProductionVariants", []):  # one that failed has none
        with gone_is_as_good():
            client("application-autoscaling").deregister_scalable_target(
                ServiceNamespace="sagemaker",
                ResourceId=f"endpoint/{endpoint['EndpointName']}/variant/{variant['VariantName']}",
                ScalableDimension="sagemaker:variant:DesiredInstanceCount",
            )


def delete_models(sagemaker: Any, prefix: str) -> None:
    for config in listed(sagemaker.get_paginator("list_endpoint_configs"), prefix):
        if re.fullmatch(f"{prefix}-{RUN_ID}", config["EndpointConfigName"]):
            with gone_is_as_good():
                sagemaker.delete_endpoint_config(EndpointConfigName=config["EndpointConfigName"])
    for model in listed(sagemaker.get_paginator("list_models"), prefix):
        if re.fullmatch(f"{prefix}-{RUN_ID}", model["ModelName"]):
            with gone_is_as_good():
                sagemaker.delete_model(ModelName=model["ModelName"])


def delete_packages(sagemaker: Any, group_arn: str) -> None:
    """Delete the group with every version in it."""
    with gone_is_as_good():
        pages = sagemaker.get_paginator("list_model_packages").paginate(ModelPackageGroupName=group_arn)
        for package in [item for page in pages for item in page["ModelPackageSummaryList"]]:
            sagemaker.delete_model_package(ModelPackageName=package["ModelPackageArn"])
        sagemaker.delete_model_package_group(ModelPackageGroupName=group_arn)


def await_jobs(sagemaker: Any, prefix: str, milliseconds_left: Callable[[], int]) -> None:
    """Wait for the jobs that were stopped: they upload what they have to the bucket. Raises NotEmptied."""
    while job := next(
        (
            job["TrainingJobName"]
            for status in GOING_ON
            for job in listed(sagemaker.get_paginator("list_training_jobs"), prefix, StatusEquals=status)
        ),
        None,
    ):
        if milliseconds_left() < LEAST_MILLISECONDS:
            raise NotEmptied(f"the job {job} is still stopping: delete the stack once more")
        time.sleep(POLL_SECONDS)


def empty(s3: Any, bucket: str, milliseconds_left: Callable[[], int]) -> None:
    """Delete every version of every object, also of those that are written meanwhile, and the bucket.

    Raises NotEmptied.
    """
    while True:
        try:
            for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
                delete_versions(s3, bucket, page.get("Versions", []) + page.get("DeleteMarkers", []))
                if milliseconds_left() < LEAST_MILLISECONDS:
                    raise NotEmptied(f"{bucket} still holds objects: delete the stack once more to go on")
            s3.delete_bucket(Bucket=bucket)
            return
        except ClientError as error:
            if error.response["Error"]["Code"] == "NoSuchBucket":
                return
            if error.response["Error"]["Code"] != "BucketNotEmpty":
                raise


def listed(paginator: Any, prefix: str, **filters: str) -> list[dict[str, Any]]:
    """Return the summaries of what bears the stack's prefix: all of them first, since what is deleted moves pages."""
    pages = paginator.paginate(NameContains=prefix, **filters)
    members = ((page, next(name for name in page if isinstance(page[name], list))) for page in pages)
    found = [item for page, member in members for item in page[member]]
    names = [next(value for key, value in item.items() if key.endswith("Name")) for item in found]
    return [item for item, name in zip(found, names, strict=True) if name == prefix or name.startswith(f"{prefix}-")]


@contextlib.contextmanager
def gone_is_as_good() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        # SageMaker's answers for what is not there, or has ended, and auto scaling's.
        if error.response["Error"]["Code"] not in (
            "ValidationException",
            "ResourceNotFound",
            "ObjectNotFoundException",
        ):
            raise


def delete_versions(s3: Any, bucket: str, versions: list[dict[str, Any]]) -> None:
    if not versions:
        return
    objects = [{"Key": version["Key"], "VersionId": version["VersionId"]} for version in versions]
    refused = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True}).get("Errors", [])
    if refused:
        first = refused[0]
        raise NotEmptied(f"{bucket}: {len(refused)} objects stay, the first {first['Key']!r}: {first.get('Message')}")


def answer(event: dict[str, Any], document: dict[str, str]) -> None:
    """Put the answer where CloudFormation waits for it: a signed URL of S3, which wants no content type."""
    identity = {key: event[key] for key in ("StackId", "RequestId", "LogicalResourceId")}
    body = json.dumps(document | identity).encode()
    request = urllib.request.Request(
        event["ResponseURL"], data=body, method="PUT", headers={"Content-Type": "", "Content-Length": str(len(body))}
    )
    with urllib.request.urlopen(request, timeout=30):
        pass
