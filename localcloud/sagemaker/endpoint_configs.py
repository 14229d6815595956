"""Endpoint configurations: production variants, each of one model on instances of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from localcloud.sagemaker.account import Account
from localcloud.sagemaker.errors import ServiceError, validation_error
from localcloud.sagemaker.listing import list_page
from localcloud.sagemaker.models import Models
from localcloud.sagemaker.objects import Location
from localcloud.sagemaker.store import RecordExists
from localcloud.sagemaker.validation import Support, refuse_unsupported

KIND = "endpoint-config"

SUPPORT = Support(
    honoured=frozenset(
        {
            "EndpointConfigName",
            "Tags",
            "ProductionVariants[].VariantName",
            "ProductionVariants[].ModelName",
            "ProductionVariants[].InitialInstanceCount",
            "ProductionVariants[].InstanceType",
            "ProductionVariants[].InitialVariantWeight",
            "ProductionVariants[].ServerlessConfig.MaxConcurrency",
            "ProductionVariants[].ContainerStartupHealthCheckTimeoutInSeconds",
            *(
                f"DataCaptureConfig.{member}"
                for member in ("EnableCapture", "InitialSamplingPercentage", "DestinationS3Uri", "CaptureOptions")
            ),
            "DataCaptureConfig.CaptureContentTypeHeader",
        }
    ),
    ignored={
        "DataCaptureConfig.KmsKeyId": "what is captured is encrypted as its bucket says",
        "KmsKeyId": "there is no volume to encrypt",
        "ProductionVariants[].ServerlessConfig.MemorySizeInMB": "the memory is the machine's",
        "ProductionVariants[].VolumeSizeInGB": "the volume is the machine's disk",
        "ProductionVariants[].InferenceAmiVersion": "there is no machine image",
        "ProductionVariants[].ModelDataDownloadTimeoutInSeconds": "the model data is on this machine",
        "ProductionVariants[].RoutingConfig.RoutingStrategy": "requests always go to the instance that has fewest",
    },
)


class EndpointConfigs:
    def __init__(self, account: Account, models: Models):
        self._account = account
        self._models = models
        self._store = account.store

    def create_endpoint_config(self, parameters: dict[str, Any]) -> dict[str, Any]:
        refuse_unsupported("CreateEndpointConfig", parameters, SUPPORT)
        variants = [{"InitialVariantWeight": 1.0, **variant} for variant in parameters["ProductionVariants"]]
        _check_variants(variants)
        for variant in variants:
            self._models.get(variant["ModelName"])
        _check_destination(parameters.get("DataCaptureConfig"))
        if any("ServerlessConfig" in variant for variant in variants):
            _check_serverless(variants, parameters)
        name = parameters["EndpointConfigName"]
        arn = self._account.arn(f"endpoint-config/{name}")
        record = {key: value for key, value in parameters.items() if key != "Tags"}
        record |= {
            "ProductionVariants": variants,
            "EndpointConfigArn": arn,
            "CreationTime": datetime.now(UTC),
            "EnableNetworkIsolation": False,
        }
        try:
            self._store.create(KIND, name, record)
        except RecordExists:
            raise _exists(arn) from None
        self._account.tags.register(arn, parameters.get("Tags"))
        return {"EndpointConfigArn": arn}

    def describe_endpoint_config(self, parameters: dict[str, Any]) -> dict[str, Any]:
        return self.get(parameters["EndpointConfigName"])

    def list_endpoint_configs(self, parameters: dict[str, Any]) -> dict[str, Any]:
        return list_page(
            parameters,
            self._store.list(KIND),
            result="EndpointConfigs",
            name="EndpointConfigName",
            sort_order="Descending",
        )

    def delete_endpoint_config(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """An endpoint that was made of it goes on serving, as on AWS."""
        config = self.get(parameters["EndpointConfigName"])
        with contextlib.suppress(KeyError):
            self._store.delete(KIND, parameters["EndpointConfigName"])
        self._account.tags.forget(config["EndpointConfigArn"])
        return {}

    def get(self, name: str) -> dict[str, Any]:
        """Raises ServiceError if there is no such configuration."""
        config = self._store.get(KIND, name)
        if config is None:
            arn = self._account.arn(f"endpoint-config/{name}")
            raise validation_error(f'Could not find endpoint configuration "{arn}".')
        return config


def _check_destination(capture: Mapping[str, Any] | None) -> None:
    """Raise ServiceError unless what is captured has a place in S3."""
    if capture is None:
        return
    try:
        Location.parse(capture["DestinationS3Uri"])
    except ValueError as error:
        raise validation_error(f"DataCaptureConfig.DestinationS3Uri: {error}") from error


def _check_variants(variants: list[dict[str, Any]]) -> None:
    """Check what botocore's model cannot say. Raises ServiceError ValidationException."""
    for number, variant in enumerate(variants):
        instances = () if "ServerlessConfig" in variant else ("InitialInstanceCount", "InstanceType")
        for member in ("ModelName", *instances):
            if member not in variant:
                raise validation_error(
                    f"ProductionVariants[{number}].{member} is required for an endpoint of instances."
                )
    names = [variant["VariantName"] for variant in variants]
    if len(set(names)) < len(names):
        raise validation_error(f"The names of production variants must be unique; got {', '.join(names)}.")
    if not sum(variant["InitialVariantWeight"] for variant in variants) > 0:
        raise validation_error("At least one production variant must have an InitialVariantWeight greater than 0.")


def _check_serverless(variants: list[dict[str, Any]], parameters: Mapping[str, Any]) -> None:
    """Check what serverless endpoints cannot have. Raises ServiceError ValidationException.

    https://docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints.html
    """
    for member in ("InitialInstanceCount", "InstanceType"):
        if any(member in variant for variant in variants if "ServerlessConfig" in variant):
            raise validation_error(f"A production variant has either ServerlessConfig or {member}, not both.")
    if len(variants) > 1:
        raise validation_error("A serverless endpoint has one production variant.")
    if parameters.get("DataCaptureConfig", {}).get("EnableCapture"):
        raise validation_error("A serverless endpoint cannot capture data.")


def _exists(arn: str) -> ServiceError:
    return validation_error(f'Cannot create already existing endpoint configuration "{arn}".')
