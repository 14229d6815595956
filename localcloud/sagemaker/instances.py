"""The instances of a training job, algo-1, algo-2 and so on: each is a container of its own, that is a folder which
stands for /opt/ml, a process, and a log stream.
"""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localcloud.containers.images import LOOPBACK
from localcloud.processes import Supervised
from localcloud.sagemaker import debugger
from localcloud.sagemaker.logs import LogStream

TAIL_LINES = 20
GROUP = "homogeneousCluster"


class Instance:
    """`folder` is the instance's own, made anew; `scratch` its TMPDIR."""

    def __init__(self, name: str, folder: Path, scratch: Path, log: LogStream):
        self.name = name
        self.home = folder / "home"
        self.opt_ml = folder / "opt" / "ml"
        self.scratch = scratch
        self.log = log
        self.process: Supervised | None = None
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)

    def local(self, value: str) -> str:
        """Return a value that names something in the container's /opt/ml as the path that it has here."""
        return (
            str(self.opt_ml) + value.removeprefix("/opt/ml")
            if value == "/opt/ml" or value.startswith("/opt/ml/")
            else value
        )

    def lay_out(self, request: Mapping[str, Any], hosts: list[str]) -> None:
        """Make /opt/ml as SageMaker does before it starts the container."""
        for part in ("input/config", "input/data", "model", "output/data", "checkpoints"):
            (self.opt_ml / part).mkdir(parents=True)
        self.home.mkdir()
        self.scratch.mkdir(mode=0o700, parents=True)
        for name, content in configuration(self, request, hosts).items():
            (self.opt_ml / "input" / "config" / f"{name}.json").write_text(json.dumps(content))


def configuration(instance: Instance, request: Mapping[str, Any], hosts: list[str]) -> dict[str, Any]:
    """Return the files of /opt/ml/input/config, by name without `.json`.

    https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html"""
    debugging = {
        output.file: {key: instance.local(v) if key == "LocalPath" else v for key, v in configuration.items()}
        for output, configuration in debugger.outputs(request)
    }
    instance_type = request.get("ResourceConfig", {}).get("InstanceType", "local")
    hyperparameters = request.get("HyperParameters", {})
    return debugging | {
        "hyperparameters": {name: instance.local(value) for name, value in hyperparameters.items()},
        "inputdataconfig": {
            channel["ChannelName"]: _channel_configuration(channel) for channel in request.get("InputDataConfig", [])
        },
        "resourceconfig": {
            "current_host": instance.name,
            "current_instance_type": instance_type,
            "current_group_name": GROUP,
            "hosts": hosts,
            "instance_groups": [{"instance_group_name": GROUP, "instance_type": instance_type, "hosts": hosts}],
            "network_interface_name": "eth0" if len(hosts) == 1 else LOOPBACK,
        },
    }


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _channel_configuration(channel: Mapping[str, Any]) -> dict[str, str]:
    source = channel["DataSource"]["S3DataSource"]
    configuration = {
        "TrainingInputMode": "File",
        "S3DistributionType": source.get("S3DataDistributionType", "FullyReplicated"),
        "RecordWrapperType": "None",
    }
    if channel.get("ContentType"):
        configuration["ContentType"] = channel["ContentType"]
    return configuration
