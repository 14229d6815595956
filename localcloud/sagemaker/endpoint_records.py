"""The record of an endpoint: its statuses, its variants as they are described, and the event that tells of it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from localcloud.sagemaker.deployments import Deployment
from localcloud.sagemaker.errors import validation_error

KIND = "endpoint"


def state_change_detail(record: Mapping[str, Any], tags: list[dict[str, str]]) -> dict[str, Any]:
    """The event's detail; here, unlike in the API, AWS writes statuses as IN_SERVICE.

    https://docs.aws.amazon.com/sagemaker/latest/dg/automating-sagemaker-with-eventbridge.html"""
    detail = {
        "EndpointName": record["EndpointName"],
        "EndpointArn": record["EndpointArn"],
        "EndpointConfigName": record["EndpointConfigName"],
        "ProductionVariants": [
            {
                "VariantName": deployment["variant_name"],
                "DesiredWeight": deployment["weight"],
                "DesiredInstanceCount": deployment["instance_count"],
            }
            for deployment in record["Deployments"]
        ],
        "EndpointStatus": re.sub(r"(?<=[a-z])(?=[A-Z])", "_", record["EndpointStatus"]).upper(),
        "CreationTime": int(record["CreationTime"].timestamp() * 1000),
        "LastModifiedTime": int(record["LastModifiedTime"].timestamp() * 1000),
        "Tags": {tag["Key"]: tag["Value"] for tag in tags},
    }
    return detail | ({"FailureReason": record["FailureReason"]} if record.get("FailureReason") else {})


def enter(record: dict[str, Any], status: str, **members: Any) -> None:
    record.update(EndpointStatus=status, LastModifiedTime=datetime.now(UTC), **members)


def wanted(deployments: list[Deployment], wishes: Mapping[str, Mapping[str, Any]]) -> list[Deployment]:
    """Return deployments as DesiredWeightsAndCapacities, by variant, would have them. Raises ServiceError."""
    if unknown := sorted(wishes.keys() - {one.variant_name for one in deployments}):
        raise validation_error(f"The endpoint has no production variant {', '.join(unknown)}.")
    changed = []
    for one in deployments:
        if one.serverless and "DesiredInstanceCount" in wishes.get(one.variant_name, {}):
            raise validation_error(f"The variant {one.variant_name} is serverless: it has no DesiredInstanceCount.")
        wish = wishes.get(one.variant_name, {})
        count, weight = wish.get("DesiredInstanceCount", one.instance_count), wish.get("DesiredWeight", one.weight)
        if count < 1:
            raise validation_error(f"DesiredInstanceCount of the variant {one.variant_name} must be at least 1.")
        changed.append(dataclasses.replace(one, instance_count=count, weight=weight))
    if not sum(one.weight for one in changed) > 0:
        raise validation_error("At least one production variant must have a DesiredWeight greater than 0.")
    return changed


def deployments_in(record: Mapping[str, Any], member: str = "Deployments") -> list[Deployment]:
    return [Deployment(**one) for one in record[member]]


def retaining(deployments: list[Deployment], current: list[Deployment], excluded: set[str]) -> list[Deployment]:
    """Return deployments with the properties that the variants of the same names have now.

    excluded: VariantPropertyTypes that are not kept.
    """
    properties = {"DesiredInstanceCount": "instance_count", "DesiredWeight": "weight"}
    now = {one.variant_name: one for one in current}
    return [
        dataclasses.replace(
            one,
            **{
                member: getattr(now[one.variant_name], member)
                for kind, member in properties.items()
                if kind not in excluded and one.variant_name in now
            },
        )
        for one in deployments
    ]


def check_scaled(
    endpoint: str, current: list[Deployment], new: list[Deployment], scaled: Callable[[str, str], bool]
) -> None:
    """Raise ServiceError if a variant that auto scaling holds would get another instance type.

    https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-scaling-update.html"""
    types = {one.variant_name: one.instance_type for one in current}
    for one in new:
        if types.get(one.variant_name, one.instance_type) != one.instance_type and scaled(endpoint, one.variant_name):
            raise validation_error(
                f"The variant {one.variant_name} of {endpoint} is a target of auto scaling: deregister it before its "
                f"instance type changes from {types[one.variant_name]} to {one.instance_type}."
            )


def check_status(record: Mapping[str, Any], verb: str, *allowed: str) -> None:
    status, arn = record["EndpointStatus"], record["EndpointArn"]
    if status == "Failed" and status not in allowed:
        raise validation_error(f'Cannot {verb} endpoint "{arn}" in status Failed: it can only be deleted.')
    if status not in allowed:
        raise validation_error(f'Cannot update in-progress endpoint "{arn}".')  # AWS's words for a deletion, too


def variant_summary(
    deployment: Mapping[str, Any], serves: bool, resolved: datetime, desired: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """desired: the deployment that the variant is being changed to, if it is."""
    desired = desired or deployment
    if deployment["serverless"]:
        capacity = {"DesiredServerlessConfig": deployment["serverless"]}
        capacity |= {"CurrentServerlessConfig": deployment["serverless"]} if serves else {}
    else:
        current = deployment["instance_count"] if serves else 0
        capacity = {"CurrentInstanceCount": current, "DesiredInstanceCount": desired["instance_count"]}
    return {
        "VariantName": deployment["variant_name"],
        "DeployedImages": [
            {
                "SpecifiedImage": deployment["image"],
                "ResolvedImage": deployment["image"],
                "ResolutionTime": resolved,
            }
        ],
        "CurrentWeight": deployment["weight"] if serves else 0.0,
        "DesiredWeight": desired["weight"],
        **capacity,
    }
