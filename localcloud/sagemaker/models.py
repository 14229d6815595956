"""Models: an image, the model.tar.gz that it serves and the role that may read it; or a model package that has both."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

from localcloud.sagemaker.account import Account
from localcloud.sagemaker.errors import ServiceError, unsupported, validation_error
from localcloud.sagemaker.listing import list_page
from localcloud.sagemaker.model_packages import ModelPackages
from localcloud.sagemaker.objects import Location
from localcloud.sagemaker.store import RecordExists
from localcloud.sagemaker.validation import Support, refuse_unsupported

KIND = "model"

SUPPORT = Support(
    honoured=frozenset(
        {
            "ModelName",
            *(
                f"{container}.{member}"
                for container in ("PrimaryContainer", "Containers[]")
                for member in ("Image", "ModelDataUrl", "Environment", "ModelPackageName")
            ),
            "ExecutionRoleArn",
            "Tags",
        }
    ),
    only={
        "PrimaryContainer.Mode": (("SingleModel",), "there are no multi-model endpoints"),
        "Containers[].Mode": (("SingleModel",), "there are no multi-model endpoints"),
    },
    ignored={
        "PrimaryContainer.ContainerHostname": "with one container nothing is addressed by its host name",
        "Containers[].ContainerHostname": "with one container nothing is addressed by its host name",
        "VpcConfig": "the container has this machine's network",
        "EnableNetworkIsolation": "requests reach the server by this machine's network",
    },
)


class Models:
    def __init__(self, account: Account, model_packages: ModelPackages):
        self._account = account
        self._model_packages = model_packages
        self._store = account.store

    def create_model(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Looks, as AWS does, whether the role can read the model data: not to be called in a thread that serves S3."""
        refuse_unsupported("CreateModel", parameters, SUPPORT)
        container = self._container(parameters)
        if "ExecutionRoleArn" not in parameters:
            raise validation_error(
                "ExecutionRoleArn is required: the model data is read and the container runs under it."
            )
        name = parameters["ModelName"]
        arn = self._account.arn(f"model/{name}")
        if self._store.get(KIND, name) is not None:
            raise _exists(arn)
        if "ModelDataUrl" in container:
            self._check_access(container["ModelDataUrl"], parameters["ExecutionRoleArn"])
        record = {key: value for key, value in parameters.items() if key != "Tags"}
        if "PrimaryContainer" in record:
            record["PrimaryContainer"] = {"Mode": "SingleModel", **record["PrimaryContainer"]}
        record |= {
            "Container": container,
            "ModelArn": arn,
            "CreationTime": datetime.now(UTC),
            "EnableNetworkIsolation": parameters.get("EnableNetworkIsolation", False),
        }
        try:
            self._store.create(KIND, name, record)
        except RecordExists:
            raise _exists(arn) from None
        self._account.tags.register(arn, parameters.get("Tags"))
        return {"ModelArn": arn}

    def describe_model(self, parameters: dict[str, Any]) -> dict[str, Any]:
        return self.get(parameters["ModelName"])

    def list_models(self, parameters: dict[str, Any]) -> dict[str, Any]:
        return list_page(parameters, self._store.list(KIND), result="Models", name="ModelName", sort_order="Descending")

    def delete_model(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """An endpoint that serves the model goes on serving it, as on AWS."""
        model = self.get(parameters["ModelName"])
        with contextlib.suppress(KeyError):
            self._store.delete(KIND, parameters["ModelName"])
        self._account.tags.forget(model["ModelArn"])
        return {}

    def get(self, name: str) -> dict[str, Any]:
        """Raises ServiceError if there is no such model."""
        model = self._store.get(KIND, name)
        if model is None:
            raise validation_error(f'Could not find model "{self._account.arn(f"model/{name}")}".')
        return model

    def _container(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """What the one container of a request is made of: Image, ModelDataUrl, Environment. Raises ServiceError."""
        containers = parameters.get("Containers") or []
        if "PrimaryContainer" in parameters:
            containers = [parameters["PrimaryContainer"], *containers]
        if len(containers) > 1:
            raise unsupported("CreateModel: more than one container", "there are no inference pipelines")
        container = containers[0] if containers else {}
        package = container.get("ModelPackageName")
        if package is not None:
            if "Image" in container or "ModelDataUrl" in container:
                raise validation_error("A container has either a ModelPackageName or an Image with its ModelDataUrl.")
            packaged = self._model_packages.container(package)
            environment = {**packaged.get("Environment", {}), **container.get("Environment", {})}
            return {**packaged, "Environment": environment}
        if not container.get("Image"):
            raise validation_error("PrimaryContainer.Image is required: a model is served by a container.")
        return container

    def _check_access(self, url: str, role_arn: str) -> None:
        try:
            location = Location.parse(url)
        except ValueError as error:
            raise validation_error(f"PrimaryContainer.ModelDataUrl: {error}") from error
        try:
            s3 = self._account.ports.client("s3", role_arn)
            s3.head_object(Bucket=location.bucket, Key=location.key)
        except ClientError as error:
            if error.response["Error"]["Code"] in {"404", "NoSuchKey", "NoSuchBucket"}:
                raise validation_error(f"Could not find model data at {url}.") from error
            raise validation_error(
                f'Could not access model data at {url}. Please ensure that the role "{role_arn}" exists and that its '
                'trust relationship policy allows the action "sts:AssumeRole" for the service principal '
                '"sagemaker.amazonaws.com". Also ensure that the role has "s3:GetObject" permissions and that the '
                f"object is located in {self._account.region}."
            ) from error


def _exists(arn: str) -> ServiceError:
    return validation_error(f'Cannot create already existing model "{arn}".')
