"""The runtime: one request to an endpoint's container and back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import urllib3

from localcloud.sagemaker import serverless
from localcloud.sagemaker.account import Account
from localcloud.sagemaker.data_capture import DataCapture
from localcloud.sagemaker.errors import ServiceError, unsupported
from localcloud.sagemaker.invocation_metrics import InvocationMetrics
from localcloud.sagemaker.rollouts import Rollouts

MOST_BODY_BYTES = 6_291_456
LONGEST_MESSAGE = 2048  # of the runtime's model

CUSTOM_ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"
PASSED_ON = ("Content-Type", "Accept", CUSTOM_ATTRIBUTES, "X-Amzn-SageMaker-Inference-Id")
REFUSED = {
    "X-Amzn-SageMaker-Target-Model": "there are no multi-model endpoints",
    "X-Amzn-SageMaker-Target-Container-Hostname": "there are no multi-container endpoints",
    "X-Amzn-SageMaker-Enable-Explanations": "there is no explainer",
    "X-Amzn-SageMaker-Inference-Component": "there are no inference components",
    "X-Amzn-SageMaker-Session-Id": "there are no stateful sessions",
    "X-Amzn-SageMaker-Prefix-Aware-Id": "there is no prefix-aware routing",
}


@dataclass(frozen=True)
class Invocation:
    """The answer to a request: an HTTP status, headers and body."""

    status: int
    headers: dict[str, str]
    body: bytes


class ModelError(ServiceError):
    """The container answered with an error, or not at all; `members` are those of the API's exception."""

    def __init__(self, message: str, original_status: int, original_message: str, log_group_arn: str):
        super().__init__("ModelError", message[:LONGEST_MESSAGE], 424)
        self.members = {
            "ErrorCode": "CLIENT_ERROR_FROM_MODEL" if 400 <= original_status < 500 else "INTERNAL_FAILURE_FROM_MODEL",
            "OriginalStatusCode": original_status,
            "OriginalMessage": original_message,
            "LogStreamArn": log_group_arn,
        }


class Runtime:
    """What the clients of endpoints ask."""

    def __init__(
        self, account: Account, rollouts: Rollouts, invocation_metrics: InvocationMetrics, data_capture: DataCapture
    ):
        self._account = account
        self._rollouts = rollouts
        self._metrics = invocation_metrics
        self._data_capture = data_capture

    def invoke_endpoint(self, name: str, body: bytes, headers: Mapping[str, str]) -> Invocation:
        """Pass a request on to the fleet in service and its answer back. Blocks for 60 s at most, in any thread.

        Raises ServiceError: ValidationError for a request that no container sees, ModelError for what it did.
        """
        came = time.monotonic()
        given = {key.lower(): value for key, value in headers.items()}
        for header, reason in REFUSED.items():
            if header.lower() in given:
                raise unsupported(f"InvokeEndpoint: the header {header}", reason)
        _check_length(body, MOST_BODY_BYTES)
        target = given.get("x-amzn-sagemaker-target-variant")
        with self._rollouts.in_service(name, target) as fleet:
            if fleet is None:
                raise _validation_error(f"Endpoint {name} of account {self._account.account_id} not found.")
            variant = fleet.deployment.variant_name
            if fleet.deployment.serverless:
                _check_length(body, serverless.MOST_BODY_BYTES)
            passed_on = {header: given[header.lower()] for header in PASSED_ON if header.lower() in given}
            asked = time.monotonic()
            status = 0
            try:
                answer = fleet.post(body, passed_on)
                status = answer.status
            except urllib3.exceptions.ReadTimeoutError as error:
                raise _model_error(
                    self._account,
                    name,
                    0,
                    "Your invocation timed out while waiting for a response from container primary. Review the latency "
                    "metrics for each container in Amazon CloudWatch, resolve the issue, and try again.",
                ) from error
            except urllib3.exceptions.HTTPError as error:
                raise _model_error(
                    self._account, name, 0, "An error occurred while handling request as the model process exited."
                ) from error
            finally:
                answered = time.monotonic()
                times = (answered - asked, asked - came)
                self._metrics.record(name, fleet.deployment, fleet.size(), status, *times)
        if not 200 <= answer.status < 300:
            raise _model_error(self._account, name, answer.status, answer.data.decode(errors="replace"))
        asked_with = (given.get("content-type"), body)
        self._data_capture.record(name, fleet.deployment, asked_with, (answer.headers.get("Content-Type"), answer.data))
        response = {
            "Content-Type": answer.headers.get("Content-Type", "application/octet-stream"),
            "x-Amzn-Invoked-Production-Variant": variant,
        }
        if CUSTOM_ATTRIBUTES in answer.headers:
            response[CUSTOM_ATTRIBUTES] = answer.headers[CUSTOM_ATTRIBUTES]
        return Invocation(200, response, answer.data)


def _check_length(body: bytes, most_bytes: int) -> None:
    if len(body) > most_bytes:
        raise _validation_error(
            "1 validation error detected: Value at 'body' failed to satisfy constraint: "
            f"Member must have length less than or equal to {most_bytes}"
        )


def _validation_error(message: str) -> ServiceError:
    """The runtime's code for it; the control plane's is ValidationException."""
    return ServiceError("ValidationError", message)


def _model_error(account: Account, name: str, status: int, message: str) -> ModelError:
    kind = "client" if 400 <= status < 500 else "server"
    region, account_id, group = account.region, account.account_id, f"/aws/sagemaker/Endpoints/{name}"
    original = message[:LONGEST_MESSAGE]
    return ModelError(
        f'Received {kind} error ({status}) from primary with message "{original[: LONGEST_MESSAGE // 2]}". See '
        f"https://{region}.console.aws.amazon.com/cloudwatch/home?region={region}#logEventViewer:group={group} "
        f"in account {account_id} for more information.",
        status,
        original,
        f"arn:aws:logs:{region}:{account_id}:log-group:{group}",
    )
