"""Register Application Auto Scaling with MiniStack, which has no such service: its API and `aws-sdk` tasks.

The state machine's role, or whoever calls, needs what AWS asks for beside the action itself:
https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling-prerequisites.html
"""

import asyncio
import json
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ministack import app
from ministack.core import router
from ministack.services import stepfunctions

from localcloud.cloud import ACCOUNT_ID, REGION
from localcloud.ministack import identities
from localcloud.ministack.sagemaker_authorisation import resource_arn
from localcloud.ministack.state_machines import access_key_of_role
from localcloud.sagemaker.auto_scaling import ACTIONS, RESOURCE, SERVICE
from localcloud.sagemaker.errors import ServiceError
from localcloud.sagemaker.service import SageMaker
from localcloud.sagemaker.validation import serialise

PREFIX = "AnyScaleFrontendService."
AWS_SDK = "arn:aws:states:::aws-sdk:applicationautoscaling:"
LINKED_SERVICE = "sagemaker.application-autoscaling.amazonaws.com"
LINKED_ROLE = (
    f"arn:aws:iam::{ACCOUNT_ID}:role/aws-service-role/{LINKED_SERVICE}/"
    "AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint"
)

Response = tuple[int, dict[str, str], bytes]


def register(sagemaker: SageMaker) -> None:
    frontend = Frontend(sagemaker)
    app.SERVICE_HANDLERS[SERVICE] = frontend.handle
    router.SERVICE_PATTERNS[SERVICE] = {"target_prefixes": [PREFIX], "host_patterns": [r"application-autoscaling\."]}
    stepfunctions._SERVICE_DISPATCH[AWS_SDK] = frontend.task


class Frontend:
    def __init__(self, sagemaker: SageMaker):
        self._sagemaker = sagemaker
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="auto scaling")

    async def handle(self, method: str, path: str, headers: dict, body: bytes, query_params: dict) -> Response:  # noqa: ARG002 - MiniStack's form of a handler
        action = headers.get("x-amz-target", "").removeprefix(PREFIX)
        access_key = router.extract_access_key_id(headers, query_params)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._respond, action, body, access_key)

    def task(self, resource: str, parameters: Any) -> dict[str, Any]:
        action = resource.removeprefix(AWS_SDK)
        try:
            return json.loads(serialise(self._call(f"{action[:1].upper()}{action[1:]}", parameters, _role_key())))
        except ServiceError as error:
            modelled = error.code.endswith("Exception") and error.code != "AccessDeniedException"
            raise stepfunctions._ExecutionError(
                f"ApplicationAutoScaling.{error.code if modelled else 'ApplicationAutoScalingException'}",
                f"{error.message} (Service: ApplicationAutoScaling, Status Code: {error.http_status}, "
                f"Request ID: {uuid.uuid4()})",
            ) from error

    def _respond(self, action: str, body: bytes, access_key: str) -> Response:
        media_type = {"Content-Type": "application/x-amz-json-1.1"}
        try:
            return 200, media_type, serialise(self._call(action, json.loads(body or b"{}"), access_key))
        except ServiceError as error:
            return error.http_status, media_type, json.dumps({"__type": error.code, "message": error.message}).encode()

    def _call(self, action: str, parameters: Mapping[str, Any], access_key: str) -> dict[str, Any]:
        if action in ACTIONS:
            self._authorise(action, parameters, access_key)
        return self._sagemaker.auto_scaling.call(action, parameters)

    def _authorise(self, action: str, parameters: Mapping[str, Any], access_key: str) -> None:
        """Raises ServiceError AccessDeniedException."""
        context = {
            "application-autoscaling:service-namespace": str(parameters.get("ServiceNamespace")),
            "application-autoscaling:scalable-dimension": str(parameters.get("ScalableDimension")),
        }
        resource = str(parameters.get("ResourceId", "*"))
        needed = [
            (f"{SERVICE}:{action}", f"arn:aws:{SERVICE}:{REGION}:{ACCOUNT_ID}:scalable-target/{resource}", context)
        ]
        if action in ("RegisterScalableTarget", "PutScalingPolicy"):
            needed += self._acted_on_behalf(resource)
        for allowed, arn, given in needed:
            if message := identities.refusal(access_key, allowed, arn, given):
                raise ServiceError("AccessDeniedException", message)

    def _acted_on_behalf(self, resource: str) -> list[tuple[str, str, dict[str, str]]]:
        """What auto scaling is going to do for who calls."""
        named = RESOURCE.fullmatch(resource)
        endpoint = resource_arn("endpoint", named["endpoint"]) if named else "*"
        alarm = f"arn:aws:cloudwatch:{REGION}:{ACCOUNT_ID}:alarm:TargetTracking-{resource}-AlarmHigh"
        return [
            ("sagemaker:DescribeEndpoint", endpoint, {}),
            ("sagemaker:UpdateEndpointWeightsAndCapacities", endpoint, {}),
            ("cloudwatch:PutMetricAlarm", alarm, {}),
            ("cloudwatch:DeleteAlarms", alarm, {}),
            ("cloudwatch:DescribeAlarms", "*", {}),
            ("iam:CreateServiceLinkedRole", LINKED_ROLE, {"iam:AWSServiceName": LINKED_SERVICE}),
        ]


def _role_key() -> str:
    try:
        return access_key_of_role()
    except identities.RoleCannotBeAssumed as error:
        raise ServiceError("AccessDeniedException", str(error)) from error
