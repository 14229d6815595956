"""Endpoints: what clients may ask for. Each change is checked and recorded here; `rollouts` brings it about."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from localcloud.sagemaker.account import Account
from localcloud.sagemaker.auto_scaling import AutoScaling
from localcloud.sagemaker.deployments import Deployment, deployment_of
from localcloud.sagemaker.endpoint_configs import EndpointConfigs
from localcloud.sagemaker.endpoint_records import (
    KIND,
    check_scaled,
    check_status,
    deployments_in,
    enter,
    retaining,
    variant_summary,
    wanted,
)
from localcloud.sagemaker.errors import validation_error
from localcloud.sagemaker.guardrails import missing_alarms, plan_of
from localcloud.sagemaker.listing import list_page
from localcloud.sagemaker.models import Models
from localcloud.sagemaker.rollouts import Rollouts
from localcloud.sagemaker.store import RecordExists
from localcloud.sagemaker.validation import Support, refuse_unsupported

_DEPLOYMENT_HONOURED = {"DeploymentConfig.BlueGreenUpdatePolicy", "DeploymentConfig.AutoRollbackConfiguration"}
CREATE_SUPPORT = Support(
    honoured=frozenset({"EndpointName", "EndpointConfigName", "Tags", *_DEPLOYMENT_HONOURED}),
)
UPDATE_SUPPORT = Support(
    honoured=frozenset(
        {
            "EndpointName",
            "EndpointConfigName",
            "RetainAllVariantProperties",
            "ExcludeRetainedVariantProperties",
            "RetainDeploymentConfig",
            *_DEPLOYMENT_HONOURED,
        }
    ),
)


WEIGHTS_SUPPORT = Support(
    honoured=frozenset(
        {
            "EndpointName",
            "DesiredWeightsAndCapacities[].VariantName",
            "DesiredWeightsAndCapacities[].DesiredWeight",
            "DesiredWeightsAndCapacities[].DesiredInstanceCount",
        }
    ),
)


class Endpoints:
    def __init__(
        self,
        account: Account,
        models: Models,
        endpoint_configs: EndpointConfigs,
        auto_scaling: AutoScaling,
        rollouts: Rollouts,
    ):
        self._account = account
        self._models = models
        self._endpoint_configs = endpoint_configs
        self._auto_scaling = auto_scaling
        self._store = account.store
        self._rollouts = rollouts

    def create_endpoint(self, parameters: dict[str, Any]) -> dict[str, Any]:
        refuse_unsupported("CreateEndpoint", parameters, CREATE_SUPPORT)
        name = parameters["EndpointName"]
        deployments = self._deployments(parameters["EndpointConfigName"])
        self._check_plan(parameters.get("DeploymentConfig"), deployments)
        arn = self._account.arn(f"endpoint/{name}")
        now = datetime.now(UTC)
        record = {
            "EndpointName": name,
            "EndpointArn": arn,
            "EndpointConfigName": parameters["EndpointConfigName"],
            "EndpointStatus": "Creating",
            "CreationTime": now,
            "LastModifiedTime": now,
            "Deployments": [dataclasses.asdict(one) for one in deployments],
            "LastDeploymentConfig": parameters.get("DeploymentConfig"),
        }
        try:
            self._store.create(KIND, name, record)
        except RecordExists:
            raise validation_error(f'Cannot create already existing endpoint "{arn}".') from None
        self._account.tags.register(arn, parameters.get("Tags"))
        self._rollouts.announce(record)
        self._rollouts.begin(self._rollouts.bring_into_service, name)
        return {"EndpointArn": arn}

    def update_endpoint(self, parameters: dict[str, Any]) -> dict[str, Any]:
        refuse_unsupported("UpdateEndpoint", parameters, UPDATE_SUPPORT)
        name = parameters["EndpointName"]
        current = self.describe_endpoint(parameters)
        arn = current["EndpointArn"]
        deployments = self._deployments(parameters["EndpointConfigName"])
        if parameters.get("RetainAllVariantProperties"):
            excluded = {one["VariantPropertyType"] for one in parameters.get("ExcludeRetainedVariantProperties", [])}
            deployments = retaining(deployments, deployments_in(current), excluded)
        retained = current.get("LastDeploymentConfig") if parameters.get("RetainDeploymentConfig") else None
        config = parameters.get("DeploymentConfig", retained)
        self._check_plan(config, deployments)

        def change(record: dict[str, Any]) -> None:
            check_status(record, "update", "InService")
            names, new_names = (
                [one.variant_name for one in several] for several in (deployments_in(record), deployments)
            )
            if config is not None and names != new_names:
                raise validation_error(
                    f"With a DeploymentConfig the variant's name must stay {', '.join(names)}; the configuration "
                    f"{parameters['EndpointConfigName']!r} calls it {', '.join(new_names)}."
                )
            if {bool(one.serverless) for one in deployments_in(record)} != {
                bool(one.serverless) for one in deployments
            }:
                raise validation_error(
                    "An endpoint of instances cannot become serverless, nor a serverless one an endpoint of instances: "
                    "create another endpoint."
                )
            check_scaled(name, deployments_in(record), deployments, self._auto_scaling.holds)
            record["LastDeploymentConfig"] = config
            record["PendingDeployments"] = [dataclasses.asdict(one) for one in deployments]
            record["PendingStage"] = {"Status": "Creating", "StartTime": datetime.now(UTC)}
            enter(record, "Updating")
            record["PendingSince"] = record["LastModifiedTime"]

        self._rollouts.announce(self._store.update(KIND, name, change))
        self._rollouts.begin(self._rollouts.replace_fleet, name)
        return {"EndpointArn": arn}

    def update_endpoint_weights_and_capacities(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """The same fleets go on, with other shares of the traffic and other numbers of servers."""
        refuse_unsupported("UpdateEndpointWeightsAndCapacities", parameters, WEIGHTS_SUPPORT)
        name = parameters["EndpointName"]
        arn = self.describe_endpoint(parameters)["EndpointArn"]
        wishes = {one["VariantName"]: one for one in parameters["DesiredWeightsAndCapacities"]}

        def change(record: dict[str, Any]) -> None:
            check_status(record, "update", "InService")
            changed = wanted(deployments_in(record), wishes)
            enter(record, "Updating", WantedDeployments=[dataclasses.asdict(one) for one in changed])

        self._rollouts.announce(self._store.update(KIND, name, change))
        self._rollouts.begin(self._rollouts.adjust, name)
        return {"EndpointArn": arn}

    def delete_endpoint(self, parameters: dict[str, Any]) -> dict[str, Any]:
        name = parameters["EndpointName"]
        self.describe_endpoint(parameters)

        def change(record: dict[str, Any]) -> None:
            check_status(record, "delete", "InService", "Failed")
            enter(record, "Deleting")

        self._rollouts.announce(self._store.update(KIND, name, change))
        self._rollouts.begin(self._rollouts.delete, name)
        return {}

    def describe_endpoint(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        record = self._store.get(KIND, parameters["EndpointName"])
        if record is None:
            arn = self._account.arn(f"endpoint/{parameters['EndpointName']}")
            raise validation_error(f'Could not find endpoint "{arn}".')
        status = record["EndpointStatus"]
        serves = status in ("InService", "Updating", "RollingBack")
        pending = record.get("PendingDeployments")
        if status != "Failed":
            desired = record.get("WantedDeployments") or record["Deployments"]
            record["ProductionVariants"] = [
                variant_summary(now, serves, record["CreationTime"], then)
                for now, then in zip(record["Deployments"], desired, strict=True)
            ]
        if pending is not None:
            record["PendingDeploymentSummary"] = {
                "EndpointConfigName": pending[0]["config_name"],
                "ProductionVariants": [
                    {**variant_summary(one, False, record["PendingSince"]), "VariantStatus": [record["PendingStage"]]}
                    for one in pending
                ],
                "StartTime": record["PendingSince"],
            }
        return record

    def list_endpoints(self, parameters: dict[str, Any]) -> dict[str, Any]:
        return list_page(
            parameters,
            self._store.list(KIND),
            result="Endpoints",
            name="EndpointName",
            status="EndpointStatus",
            sort_order="Descending",
        )

    def _deployments(self, config_name: str) -> list[Deployment]:
        config = self._endpoint_configs.get(config_name)
        return [
            deployment_of(config, variant, self._models.get(variant["ModelName"]))
            for variant in config["ProductionVariants"]
        ]

    def _check_plan(self, config: Mapping[str, Any] | None, deployments: list[Deployment]) -> None:
        """Raises ServiceError: a DeploymentConfig that contradicts itself or that is for several variants, which AWS
        has no guardrails for; alarms that are not there or not readable.

        The alarms are read as the role of the model, as AWS does: not to be called in a thread that serves CloudWatch.
        """
        if config and len(deployments) > 1:
            raise validation_error(
                "A DeploymentConfig is for an endpoint of one production variant; this one has "
                f"{', '.join(one.variant_name for one in deployments)}."
            )
        alarms, role_arn = plan_of(config, deployments[0].instance_count).alarms, deployments[0].role_arn
        if not alarms:
            return
        try:
            missing = missing_alarms(self._account.ports.client("cloudwatch", role_arn), alarms)
        except ClientError as error:
            raise validation_error(
                f"Could not describe the alarms {', '.join(alarms)}. Please ensure that the role "
                f'"{role_arn}" has "cloudwatch:DescribeAlarms" permissions on them. ({error})'
            ) from error
        if missing:
            raise validation_error(f"AutoRollbackConfiguration names alarms that do not exist: {', '.join(missing)}.")
