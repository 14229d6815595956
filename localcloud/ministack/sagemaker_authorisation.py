"""What IAM is asked about a SageMaker request: the resource it names, the role it passes, the configuration it uses."""

import functools
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from ministack.core import iam_actions

from localcloud.cloud import ACCOUNT_ID, REGION
from localcloud.ministack import identities
from localcloud.ministack.repairs import Repair
from localcloud.sagemaker.errors import ServiceError, validation_error

SERVICE_PRINCIPAL = "sagemaker.amazonaws.com"
SESSION_NAME = "SageMaker"  # as in assumed-role/<role>/SageMaker on AWS
INVOCATION_PATH = re.compile(r"^/endpoints/(?P<name>[^/]+)/invocations$")

# Request member to the resource part of its ARN. The first that a request carries names the resource that IAM checks.
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsagemaker.html
RESOURCE_MEMBERS = {
    "EndpointName": "endpoint",
    "TrainingJobName": "training-job",
    "HyperParameterTuningJobName": "hyper-parameter-tuning-job",
    "ModelName": "model",
    "EndpointConfigName": "endpoint-config",
    "ModelPackageName": "model-package",
    "ModelPackageArn": "model-package",
    "ModelPackageGroupName": "model-package-group",
}
ROLE_MEMBERS = {
    "CreateTrainingJob": ("RoleArn",),
    "CreateHyperParameterTuningJob": ("TrainingJobDefinition", "RoleArn"),
    "CreateModel": ("ExecutionRoleArn",),
    "CreateEndpointConfig": ("ExecutionRoleArn",),
}


def _extract_resource_arn(original: Callable[..., str]) -> Callable[..., str]:
    @functools.wraps(original)
    def extract_resource_arn(service: str, method: str, path: str, headers: dict, body: bytes, *rest: Any) -> str:
        if service == "sagemaker":
            return resource_of_request(path, headers, body)
        return original(service, method, path, headers, body, *rest)

    return extract_resource_arn


def resource_of_request(path: str, headers: dict, body: bytes) -> str:
    invocation = INVOCATION_PATH.match(path)
    if invocation is not None and not headers.get("x-amz-target"):
        return resource_arn("endpoint", unquote(invocation["name"]))
    try:
        parameters = json.loads(body)
    except ValueError:
        return "*"  # the request is refused as malformed a little later
    action = headers.get("x-amz-target", "").rpartition(".")[2]
    return resource_of(action, parameters) if isinstance(parameters, dict) else "*"


def resource_of(action: str, parameters: dict[str, Any]) -> str:
    group = parameters.get("ModelPackageGroupName")
    if action == "CreateModelPackage" and isinstance(group, str):
        # A version is created: policies grant it on model-package/<group>/*, not on the group.
        # https://docs.aws.amazon.com/sagemaker/latest/dg/model-registry-version.html
        return resource_arn("model-package", f"{group.rpartition('/')[2]}/*")
    for member, kind in RESOURCE_MEMBERS.items():
        if isinstance(parameters.get(member), str):
            return resource_arn(kind, parameters[member])
    return str(parameters.get("ResourceArn", "*"))


def resource_arn(kind: str, name: str) -> str:
    if name.startswith("arn:"):
        return name
    return f"arn:aws:sagemaker:{REGION}:{ACCOUNT_ID}:{kind}/{name.lower()}"


def authorise_references(access_key: str, action: str, parameters: dict[str, Any]) -> None:
    """Check what a request needs beyond its own action: to pass the role that it names, and to use its endpoint config.

    Raises ServiceError: AccessDeniedException, or ValidationException if SageMaker may not assume the role.
    """
    role: Any = parameters
    for member in ROLE_MEMBERS.get(action, ("",)):
        role = role.get(member) if isinstance(role, dict) else None
    checks = []
    if isinstance(role, str):
        checks.append(("iam:PassRole", role, {"iam:PassedToService": SERVICE_PRINCIPAL}))
    if action in ("CreateEndpoint", "UpdateEndpoint") and isinstance(parameters.get("EndpointConfigName"), str):
        config = resource_arn("endpoint-config", parameters["EndpointConfigName"])
        checks.append((f"sagemaker:{action}", config, {}))
    for needed, arn, context in checks:
        if message := identities.refusal(access_key, needed, arn, context):
            raise ServiceError("AccessDeniedException", message)
    if isinstance(role, str):
        assume(role)


def assume(role_arn: str) -> tuple[str, str, str]:
    """Return the credentials of SageMaker's session under a role. Raises ServiceError ValidationException."""
    try:
        return identities.assume_role(role_arn, SERVICE_PRINCIPAL, SESSION_NAME)
    except identities.RoleCannotBeAssumed as error:
        raise validation_error(
            f"Could not assume role {role_arn}. Please ensure that the role exists and allows principal "
            f"'{SERVICE_PRINCIPAL}' to assume the role: {error}"
        ) from error


REPAIRS = [
    Repair(
        "the resources of SageMaker's requests are not known",
        iam_actions.__name__,
        "extract_resource_arn",
        "82f51700695c",
        _extract_resource_arn,
    )
]
