"""The instances behind one variant of an endpoint: a server for each."""

from __future__ import annotations

import contextlib
import logging
import secrets
import shutil
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import urllib3
from botocore.exceptions import BotoCoreError, ClientError

from localcloud.containers.images import UnknownImage
from localcloud.sagemaker.account import Account
from localcloud.sagemaker.deployments import Deployment
from localcloud.sagemaker.errors import ServiceError
from localcloud.sagemaker.faults import Fault
from localcloud.sagemaker.host import host_environment
from localcloud.sagemaker.logs import LogStream
from localcloud.sagemaker.objects import Location
from localcloud.sagemaker.servers import (
    INVOCATION_TIMEOUT_SECONDS,
    PING_TIMEOUT_SECONDS,
    TERMINATION_GRACE_SECONDS,
    Server,
    answers_ping,
    launch_of,
)

logger = logging.getLogger(__name__)

MOST_STARTS = 2
"""AWS starts a crashing container again until the time-out; here it has this many chances to come up the first time."""

NO_CAPACITY = (
    "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error. Please retry using a "
    "different ML instance type or after some time."
)


class DeploymentFailed(Exception):
    """The message is the endpoint's FailureReason."""


class Closed(Exception):
    """The service was closed while the fleet started."""


class Fleet:
    """`folder` is the fleet's own. Its instances log to streams <variant>/<instance id> of `log_group`."""

    def __init__(self, account: Account, deployment: Deployment, folder: Path, log_group: str):
        self.deployment = deployment
        self._account = account
        self._folder = folder
        self._log_group = log_group
        self._servers: list[Server] = []
        self._add_server: Callable[[], None] = _not_started
        self._idle = threading.Condition()
        self._in_flight = 0
        self._stop_requested = False

    def start(self, closing: threading.Event) -> None:
        """Return when every server is healthy. Raises DeploymentFailed and Closed; end it then, too."""
        deployment, ports = self.deployment, self._account.ports
        self._wait_for_instances(closing)
        for leftover in self._folder.glob("i-*"):  # of servers before a restart
            shutil.rmtree(leftover, ignore_errors=True)
        model_folder = self._folder / "model"
        if not model_folder.exists():
            self._prepare_model(model_folder)
        try:
            launcher = self._account.images.serving(deployment.image)
            environment = {
                **host_environment(),
                **ports.role_environment(deployment.role_arn),
                **deployment.environment,
            }
            logs = ports.client("logs", deployment.role_arn)
        except UnknownImage as error:
            raise DeploymentFailed(str(error)) from error
        except ServiceError as error:
            raise DeploymentFailed(error.message) from error

        def add_server() -> None:
            instance_id = f"i-{secrets.token_hex(8)}"
            stream = LogStream(logs, self._log_group, f"{deployment.variant_name}/{instance_id}")
            launch = launch_of(launcher, model_folder, self._folder / instance_id, environment, stream)
            with self._idle:
                if self._stop_requested:
                    raise Closed
                self._servers.append(Server(launch, stream, deployment.startup_timeout_seconds, self._is_healthy))

        self._add_server = add_server
        self._grow(deployment.instance_count, closing)

    def scale(self, instance_count: int, closing: threading.Event) -> None:
        """Return when there are so many servers, all of them healthy, and those that are too many have answered what
        they were asked and ended. Raises DeploymentFailed, and then there are as many as before, and Closed.
        """
        if instance_count > len(self._servers):
            self._wait_for_instances(closing)
            self._grow(instance_count, closing)
        else:
            self._retire(instance_count)

    @contextlib.contextmanager
    def request(self) -> Iterator[None]:
        """Hold the fleet for one request: `drain` waits for its end."""
        with self._idle:
            self._in_flight += 1
        try:
            yield
        finally:
            with self._idle:
                self._in_flight -= 1
                self._idle.notify_all()

    def post(self, body: bytes, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """POST /invocations to the healthy server with the fewest requests. Raises urllib3's errors."""
        return min(self._servers, key=lambda server: (not server.healthy, server.load)).post(body, headers)

    def size(self) -> int:
        """How many servers there are."""
        return len(self._servers)

    def healthy(self) -> bool:
        """Whether every server answers its health check."""
        return all(server.healthy for server in self._servers)

    def drain(self) -> None:
        """Return when no request is in flight, or all of them are past their time-out."""
        with self._idle:
            self._idle.wait_for(lambda: self._in_flight == 0, INVOCATION_TIMEOUT_SECONDS + 5)

    def request_stop(self, grace_seconds: float = TERMINATION_GRACE_SECONDS) -> None:
        """Begin to end every process; a fleet that is still starting starts no more of them."""
        with self._idle:
            self._stop_requested = True
            servers = list(self._servers)
        for server in servers:
            server.request_stop(grace_seconds)

    def wait(self, timeout_seconds: float | None = None) -> None:
        """Return when every process is gone; `request_stop` first."""
        for server in self._servers:
            server.wait(timeout_seconds)

    def remove(self) -> None:
        """Remove the folder of a fleet that has ended."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait_for_instances(self, closing: threading.Event) -> None:
        """Start at once, unless a fault has it otherwise. Raises DeploymentFailed and Closed."""
        fault = self._take_fault("StartDelay")
        if fault and self._account.faults.delay(fault.options["Seconds"], closing):
            raise Closed
        if self._take_fault("InsufficientCapacity"):
            raise DeploymentFailed(NO_CAPACITY)

    def _grow(self, instance_count: int, closing: threading.Event) -> None:
        """Add servers, and return when all are healthy. Raises Closed; whatever else it raises, none is added then."""
        before = len(self._servers)
        try:
            while len(self._servers) < instance_count:
                self._add_server()
            self._wait_until_healthy(closing)
        except Closed:
            raise
        except Exception:
            self._retire(before)
            raise

    def _retire(self, instance_count: int) -> None:
        """End the servers beyond this count when they have answered what they were asked."""
        with self._idle:
            retired, self._servers = self._servers[instance_count:], self._servers[:instance_count]
            self._idle.wait_for(lambda: all(server.load == 0 for server in retired), INVOCATION_TIMEOUT_SECONDS + 5)
        for server in retired:
            server.request_stop(TERMINATION_GRACE_SECONDS)
        for server in retired:
            server.wait()

    def _is_healthy(self, connections: urllib3.HTTPConnectionPool) -> bool:
        """Ask a server for its health, unless a fault answers in its place."""
        if self._take_fault("FailingHealth"):
            return False
        if fault := self._take_fault("SlowHealth"):
            time.sleep(min(fault.options["Seconds"], PING_TIMEOUT_SECONDS))
            if fault.options["Seconds"] >= PING_TIMEOUT_SECONDS:
                return False
        return answers_ping(connections)

    def _take_fault(self, kind: str) -> Fault | None:
        return self._account.faults.take(kind, self._log_group.rpartition("/")[2])

    def _prepare_model(self, model_folder: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        unpacking = self._folder / "model.unpacking"
        shutil.rmtree(unpacking, ignore_errors=True)
        unpacking.mkdir()
        if self.deployment.model_data_url is not None:
            archive = self._folder / "model.tar.gz"
            self._download(self.deployment.model_data_url, archive)
            _unpack(archive, unpacking, self.deployment.model_data_url)
            archive.unlink()
        unpacking.replace(model_folder)  # so a folder named model is always whole

    def _download(self, url: str, archive: Path) -> None:
        location = Location.parse(url)
        try:
            s3 = self._account.ports.client("s3", self.deployment.role_arn)
            s3.download_file(location.bucket, location.key, str(archive))
        except (ClientError, BotoCoreError, ServiceError) as error:
            raise DeploymentFailed(
                f'Failed to download model data from URL "{url}". Please ensure that there is an object located at the '
                f"URL and that the role passed to CreateModel has permissions to download the object. ({error})"
            ) from error

    def _wait_until_healthy(self, closing: threading.Event) -> None:
        timeout_seconds = self.deployment.startup_timeout_seconds
        while not self.healthy():
            failures = [server.failure for server in self._servers if server.failure]
            if failures:
                raise DeploymentFailed(failures[0])
            if any(s.exits >= MOST_STARTS or s.seconds_since_start() > timeout_seconds for s in self._servers):
                raise DeploymentFailed(
                    f"The primary container for production variant {self.deployment.variant_name} did not pass the "
                    "ping health check. Please check CloudWatch logs for this endpoint."
                )
            if closing.wait(0.02) or self._stop_requested:
                raise Closed


def _not_started() -> None:
    raise AssertionError("a fleet is scaled once it has started")


def _unpack(archive: Path, folder: Path, url: str) -> None:
    try:
        with tarfile.open(archive, "r:gz") as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DeploymentFailed(
            f'Failed to extract model data archive from URL "{url}". Please ensure that the object located at the URL '
            f"is a valid tar.gz archive. ({error})"
        ) from error
