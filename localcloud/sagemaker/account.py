"""The account that every part of the service works in: where it keeps what, and all that it needs from outside."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcloud.containers.images import Images
from localcloud.sagemaker.faults import Faults
from localcloud.sagemaker.store import Store
from localcloud.sagemaker.tags import Tags

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ports:
    """All that SageMaker needs from outside. Each is called from many threads at once."""

    client: Callable[[str, str | None], Any]
    """(boto3 service name, role ARN or None for the service itself) to a boto3 client with that identity."""
    role_environment: Callable[[str], dict[str, str]]
    """Role ARN to the AWS_* variables (endpoint, region, the role's temporary credentials) for a container."""
    publish_event: Callable[[str, dict, list[str]], None]
    """(detail-type, detail, resource ARNs): an event of the source aws.sagemaker."""


class Account:
    """`home` keeps records and caches; what is in it is there again after a restart, finished jobs included."""

    def __init__(self, home: Path, images: Images, ports: Ports, region: str, account_id: str):
        self.home = home
        self.images = images
        self.ports = ports
        self.region = region
        self.account_id = account_id
        self.faults = Faults()
        self.store = Store(home / "records")
        self.tags = Tags(self.store)

    def announce(self, detail_type: str, arn: str, detail: Callable[[list[dict[str, str]]], dict[str, Any]]) -> None:
        """Publish a resource's event. An event that cannot be published is in the log, and changes nothing else.

        detail: the event's detail, from the resource's tags.
        """
        try:
            self.ports.publish_event(detail_type, detail(self.tags.of(arn)), [arn])
        except Exception:
            logger.exception("no event for %s", arn)

    def arn(self, resource: str) -> str:
        """Return the ARN of a resource such as `training-job/name`."""
        return f"arn:aws:sagemaker:{self.region}:{self.account_id}:{resource}"
