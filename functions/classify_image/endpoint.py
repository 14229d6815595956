"""The endpoint: what it answers to an image, and whether an error is the image's fault or passes."""

import json
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError
from content import ContentRejected
from messages import NotNow

REFUSED_BY_MODEL = (400, 413, 415)

TROUBLE = (
    # https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html#API_runtime_InvokeEndpoint_Errors
    "InternalDependencyException",
    "InternalFailure",
    "ModelNotReadyException",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "ThrottlingException",
    "ValidationError",  # there is no such endpoint: what else it could mean is right in every request
)
BUSY = (429, 502, 503, 504)
NO_ANSWER = 0
"""The original status where the model's process ended or was too slow."""


class EndpointInTrouble(NotNow):
    """The endpoint gives no answer to any image for now."""


@dataclass(frozen=True)
class Endpoint:
    runtime: Any
    name: str
    unknown_below: float | None
    """None: the model's own threshold."""

    def classify(self, image: bytes, content_type: str, last: bool) -> dict[str, Any]:
        """Return the outcome of an image. last: a server error is no more taken for trouble that passes.

        Raises ContentRejected if the model refuses it, one of IN_THE_WAY if it is not the image that is at fault; any
        other error comes again.
        """
        try:
            response = self.runtime.invoke_endpoint(
                EndpointName=self.name, ContentType=content_type, Accept="application/json", Body=image
            )
            body = json.loads(response["Body"].read())
        except ClientError as error:
            if error.response.get("OriginalStatusCode") in REFUSED_BY_MODEL:
                raise _refusal(error.response) from error
            if _is_trouble(error.response, last):
                raise EndpointInTrouble(str(error)) from error
            raise
        return self._outcome(body)

    def _outcome(self, body: dict[str, Any]) -> dict[str, Any]:
        first = body["predictions"][0]
        model = {"confidence_threshold": 0, "package_arn": None} | body["model"]  # older artifacts know neither
        outcome = {
            "status": "classified",
            "label": first["label"],
            "probability": first["probability"],
            "predictions": body["predictions"],
            "reason": None,
            "model": model,
        }
        threshold = model["confidence_threshold"] if self.unknown_below is None else self.unknown_below
        if first["probability"] < threshold:
            message = f"{first['label']} at {first['probability']:.4f}; answers below {threshold:g} are none"
            outcome |= {"status": "unknown", "label": None, "reason": {"code": "BelowConfidence", "message": message}}
        return outcome


def _refusal(response: dict[str, Any]) -> ContentRejected:
    try:
        body = json.loads(response["OriginalMessage"])
        return ContentRejected(body["error"], body["reason"])
    except (ValueError, KeyError, TypeError):
        return ContentRejected("RefusedByModel", str(response.get("OriginalMessage")))


def _is_trouble(response: dict[str, Any], last: bool) -> bool:
    code, status = response["Error"]["Code"], response.get("OriginalStatusCode")
    if code != "ModelError":
        return code in TROUBLE
    return status in BUSY or (not last and (status is None or status == NO_ANSWER or status >= 500))
