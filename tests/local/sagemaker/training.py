"""What tests of training jobs ask for."""

from typing import Any

import pytest

from localcloud.sagemaker.errors import ServiceError

WAIT = "import time\nprint('ready', flush=True)\ntime.sleep(600)"


def channel(name: str, uri: str, **source: str) -> dict[str, Any]:
    return {"ChannelName": name, "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri, **source}}}


def refusal(sagemaker, action: str, parameters: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(ServiceError) as caught:
        sagemaker.call(action, parameters)
    return caught.value.code, caught.value.message
