"""Serverless variants: a server that ends when nobody asks it, and starts again with the next request.

https://docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints.html. One process answers all requests at once, at
most MaxConcurrency; on AWS there would be a container for each. The first request after a rest waits for the start.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import urllib3

from localcloud.sagemaker.account import Account
from localcloud.sagemaker.deployments import Deployment
from localcloud.sagemaker.errors import ServiceError
from localcloud.sagemaker.fleets import Closed, DeploymentFailed, Fleet

REST_SECONDS = 300.0
"""After so long without a request the server ends. AWS does not publish its own."""
POLL_SECONDS = 1.0
MOST_BODY_BYTES = 4 << 20  # https://docs.aws.amazon.com/sagemaker/latest/dg/serverless-endpoints-invoke.html


class ServerlessFleet(Fleet):
    def __init__(self, account: Account, deployment: Deployment, folder: Path, log_group: str):
        super().__init__(account, deployment, folder, log_group)
        assert deployment.serverless is not None
        self._most_requests: int = deployment.serverless["MaxConcurrency"]
        self._waking = threading.Lock()
        self._closing = threading.Event()
        self._last_request = time.monotonic()

    def start(self, closing: threading.Event) -> None:
        """As any fleet: the container has to be healthy once before the endpoint is in service."""
        self._closing = closing
        super().start(closing)
        threading.Thread(target=self._rest_when_idle, name="serverless endpoint", daemon=True).start()

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Raises ServiceError ThrottlingException beyond MaxConcurrency."""
        with self._idle:
            if self._in_flight >= self._most_requests:
                raise ServiceError(
                    "ThrottlingException", f"Rate exceeded: MaxConcurrency is {self._most_requests}", 429
                )
        with super().request():
            yield

    def post(self, body: bytes, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        with self._waking:
            self._last_request = time.monotonic()
            if not self._servers:
                try:
                    self.scale(1, self._closing)
                except (DeploymentFailed, Closed) as error:
                    raise urllib3.exceptions.ProtocolError(f"the server did not start: {error}") from error
        try:
            return super().post(body, headers)
        finally:
            self._last_request = time.monotonic()

    def _rest_when_idle(self) -> None:
        while not self._closing.wait(POLL_SECONDS) and not self._stop_requested:
            with self._waking:
                rested = time.monotonic() - self._last_request >= REST_SECONDS
                if self._servers and rested and not self._in_flight:
                    self._retire(0)
