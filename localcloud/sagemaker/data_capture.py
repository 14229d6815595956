"""Data capture: requests of an endpoint and their answers, sampled, as JSON lines in S3.

https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-data-capture-endpoint.html
"""

from __future__ import annotations

import base64
import json
import logging
import random
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from localcloud.sagemaker.account import Account
from localcloud.sagemaker.deployments import Deployment
from localcloud.sagemaker.gathering import Gathering
from localcloud.sagemaker.objects import Location

logger = logging.getLogger(__name__)

PUT_SECONDS = 5.0
"""How long exchanges are gathered for one object; AWS takes minutes."""
SIDES = {"endpointInput": ("Input", "INPUT"), "endpointOutput": ("Output", "OUTPUT")}

_Stream = tuple[str, str, str, str]  # destination, endpoint, variant, role


class DataCapture:
    """What is gathered when the service closes is put too."""

    def __init__(self, account: Account):
        self._account = account
        self._lines = Gathering[tuple[_Stream, str]](
            "data capture", lambda: PUT_SECONDS, self._put_all, put_at_close=True
        )

    def record(
        self,
        endpoint: str,
        deployment: Deployment,
        asked: tuple[str | None, bytes],
        answered: tuple[str | None, bytes],
    ) -> None:
        """Take in one exchange that went well, if the configuration samples it. asked, answered: content type, body."""
        config = deployment.data_capture
        if not config or not config.get("EnableCapture", False):
            return
        if random.random() * 100 >= config["InitialSamplingPercentage"]:
            return
        line = json.dumps(_record(config, asked, answered, datetime.now(UTC)))
        stream = (config["DestinationS3Uri"], endpoint, deployment.variant_name, deployment.role_arn)
        self._lines.add((stream, line))

    def close(self) -> None:
        self._lines.close()

    def _put_all(self, gathered: list[tuple[_Stream, str]]) -> None:
        lines: dict[_Stream, list[str]] = {}
        for stream, line in gathered:
            lines.setdefault(stream, []).append(line)
        for stream, written in lines.items():
            self._put(stream, written, datetime.now(UTC))

    def _put(self, stream: _Stream, lines: list[str], when: datetime) -> None:
        destination, endpoint, variant, role_arn = stream
        name = f"{when:%M-%S}-{when.microsecond // 1000:03d}-{uuid.uuid4()}.jsonl"
        location = Location.parse(destination).below(f"{endpoint}/{variant}/{when:%Y/%m/%d/%H}/{name}")
        try:
            self._account.ports.client("s3", role_arn).put_object(
                Bucket=location.bucket, Key=location.key, Body="".join(f"{line}\n" for line in lines).encode()
            )
        except (BotoCoreError, ClientError) as error:
            logger.warning("%d captured requests of endpoint %s were not put: %s", len(lines), endpoint, error)


def _record(
    config: Mapping[str, Any], asked: tuple[str | None, bytes], answered: tuple[str | None, bytes], when: datetime
) -> dict[str, Any]:
    modes = {option["CaptureMode"] for option in config["CaptureOptions"]}
    exchange = {"endpointInput": asked, "endpointOutput": answered}
    return {
        "captureData": {
            side: _data(config.get("CaptureContentTypeHeader", {}), mode, *exchange[side])
            for side, (option, mode) in SIDES.items()
            if modes & {option, "InputAndOutput"}
        },
        "eventMetadata": {"eventId": str(uuid.uuid4()), "inferenceTime": f"{when:%Y-%m-%dT%H:%M:%SZ}"},
        "eventVersion": "0",
    }


def _data(header: Mapping[str, Any], mode: str, content_type: str | None, body: bytes) -> dict[str, Any]:
    """One side of an exchange: as text where the configuration calls its content type CSV or JSON, else in base 64."""
    kind = (content_type or "").partition(";")[0].strip()
    encoding = next(
        (
            name
            for name, member in (("CSV", "CsvContentTypes"), ("JSON", "JsonContentTypes"))
            if kind in header.get(member, [])
        ),
        "BASE64",
    )
    data = base64.b64encode(body).decode() if encoding == "BASE64" else body.decode(errors="replace")
    return {"observedContentType": content_type, "mode": mode, "data": data, "encoding": encoding}
