"""What an endpoint runs, in plain values.

A deployment holds the image, the model data and the role of a model as they were when the endpoint was created or
updated. So it starts again after a restart of the service, whatever became of the model since.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEFAULT_STARTUP_TIMEOUT_SECONDS = 480
"""AWS gives a container 8 minutes to answer its first health check, unless the variant says otherwise."""


@dataclass(frozen=True)
class Deployment:
    """What the fleet of one variant runs. Everything that a start needs, in plain values."""

    fleet_id: str
    config_name: str
    variant_name: str
    instance_count: int
    weight: float
    image: str
    model_data_url: str | None
    environment: Mapping[str, str]
    role_arn: str
    startup_timeout_seconds: float
    data_capture: Mapping[str, Any] | None = None
    """DataCaptureConfig of the configuration."""
    instance_type: str | None = None
    """None for a serverless variant."""
    serverless: Mapping[str, Any] | None = None
    """ServerlessConfig of a variant that has no instances of its own."""


def deployment_of(config: Mapping[str, Any], variant: Mapping[str, Any], model: Mapping[str, Any]) -> Deployment:
    """Return a new deployment of one of a configuration's production variants and its model, as the service records
    them.
    """
    container = model["Container"]
    return Deployment(
        fleet_id=secrets.token_hex(4),
        config_name=config["EndpointConfigName"],
        variant_name=variant["VariantName"],
        instance_count=variant.get("InitialInstanceCount", 1),
        weight=variant["InitialVariantWeight"],
        image=container["Image"],
        model_data_url=container.get("ModelDataUrl"),
        environment=container.get("Environment", {}),
        role_arn=model["ExecutionRoleArn"],
        startup_timeout_seconds=variant.get(
            "ContainerStartupHealthCheckTimeoutInSeconds", DEFAULT_STARTUP_TIMEOUT_SECONDS
        ),
        data_capture=config.get("DataCaptureConfig"),
        instance_type=variant.get("InstanceType"),
        serverless=variant.get("ServerlessConfig"),
    )
