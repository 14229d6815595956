"""The containers behind an endpoint: one process for each instance, kept running and asked for its health.

A fleet starts from a deployment: the image, the model data and the role of a model, as they were when the endpoint was
created or updated. So it starts again after a restart of the service, whatever became of the model since.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import shutil
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import urllib3
from botocore.exceptions import BotoCoreError, ClientError

from localcloud.containers.images import LaunchError, ServingContainer, UnknownImage
from localcloud.processes import ProcessSpec, Supervised, spawn
from localcloud.sagemaker.errors import ServiceError
from localcloud.sagemaker.faults import Fault
from localcloud.sagemaker.host import host_environment
from localcloud.sagemaker.logs import LogStream
from localcloud.sagemaker.objects import Location

if TYPE_CHECKING:
    from localcloud.sagemaker.service import SageMaker

logger = logging.getLogger(__name__)

DEFAULT_STARTUP_TIMEOUT_SECONDS = 480
"""AWS gives a container 8 minutes to answer its first health check, unless the variant says otherwise."""
PING_TIMEOUT_SECONDS = 2
"""AWS's. A slower answer counts as none."""
PING_INTERVAL_SECONDS = 5
UNHEALTHY_SECONDS = 60
"""A server that answered once is replaced after so long without an answer: long, as a laptop may be training, too."""
MOST_STARTS = 2
"""AWS starts a crashing container again until the time-out; here it has this many chances to come up the first time."""
INVOCATION_TIMEOUT_SECONDS = 60
TERMINATION_GRACE_SECONDS = 10
LONGEST_RESTART_DELAY_SECONDS = 30
LOG_INTERVAL_SECONDS = 0.5
NO_CAPACITY = (
    "Unable to provision requested ML compute capacity due to InsufficientInstanceCapacity error. Please retry using a "
    "different ML instance type or after some time."
)


class DeploymentFailed(Exception):
    """The message is the endpoint's FailureReason."""


class Closed(Exception):
    """The service was closed while the fleet started."""


@dataclass(frozen=True)
class Deployment:
    """What a fleet runs. Everything that a start needs, in plain values."""

    fleet_id: str
    config_name: str
    variant_name: str
    instance_count: int
    weight: float
    image: str
    model_data_url: str | None
    environment: Mapping[str, str]
    role_arn: str
    startup_timeout_seconds: float
    data_capture: Mapping[str, Any] | None = None
    """DataCaptureConfig of the configuration."""


def deployment_of(config: Mapping[str, Any], model: Mapping[str, Any]) -> Deployment:
    """A new deployment of an endpoint configuration and its model, as the service records them."""
    variant, container = config["ProductionVariants"][0], model["Container"]
    return Deployment(
        fleet_id=secrets.token_hex(4),
        config_name=config["EndpointConfigName"],
        variant_name=variant["VariantName"],
        instance_count=variant["InitialInstanceCount"],
        weight=variant["InitialVariantWeight"],
        image=container["Image"],
        model_data_url=container.get("ModelDataUrl"),
        environment=container.get("Environment", {}),
        role_arn=model["ExecutionRoleArn"],
        startup_timeout_seconds=variant.get(
            "ContainerStartupHealthCheckTimeoutInSeconds", DEFAULT_STARTUP_TIMEOUT_SECONDS
        ),
        data_capture=config.get("DataCaptureConfig"),
    )


class Fleet:
    """`folder` is the fleet's own. Its instances log to streams <variant>/<instance id> of `log_group`."""

    def __init__(self, service: SageMaker, deployment: Deployment, folder: Path, log_group: str):
        self.deployment = deployment
        self._service = service
        self._folder = folder
        self._log_group = log_group
        self._servers: list[Server] = []
        self._idle = threading.Condition()
        self._in_flight = 0
        self._stop_requested = False

    def start(self, closing: threading.Event) -> None:
        """Return when every server is healthy. Raises DeploymentFailed and Closed; end it then, too."""
        deployment, ports = self.deployment, self._service.ports
        self._wait_for_instances(closing)
        model_folder = self._folder / "model"
        if not model_folder.exists():
            self._prepare_model(model_folder)
        try:
            launcher = self._service.images.serving(deployment.image)
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
        for number in range(deployment.instance_count):
            stream = LogStream(logs, self._log_group, f"{deployment.variant_name}/i-{secrets.token_hex(8)}")
            work_folder = self._folder / f"work-{number}"
            launch = _launch(launcher, model_folder, work_folder, environment, stream)
            with self._idle:
                if self._stop_requested:
                    raise Closed
                self._servers.append(Server(launch, stream, deployment.startup_timeout_seconds, self._is_healthy))
        self._wait_until_healthy(closing)

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
        """POST /invocations to the server with the fewest requests. Raises urllib3's errors."""
        return min(self._servers, key=lambda server: server.load).post(body, headers)

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
        if fault and closing.wait(fault.options["Seconds"]):
            raise Closed
        if self._take_fault("InsufficientCapacity"):
            raise DeploymentFailed(NO_CAPACITY)

    def _is_healthy(self, connections: urllib3.HTTPConnectionPool) -> bool:
        """Ask a server for its health, unless a fault answers in its place."""
        if self._take_fault("FailingHealth"):
            return False
        if fault := self._take_fault("SlowHealth"):
            time.sleep(min(fault.options["Seconds"], PING_TIMEOUT_SECONDS))
            if fault.options["Seconds"] >= PING_TIMEOUT_SECONDS:
                return False
        return _answers_ping(connections)

    def _take_fault(self, kind: str) -> Fault | None:
        return self._service.faults.take(kind, self._log_group.rpartition("/")[2])

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
            s3 = self._service.ports.client("s3", self.deployment.role_arn)
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
            if closing.wait(0.02):
                raise Closed


class Server:
    """One container: a process that is started again whenever it ends, until `request_stop`."""

    def __init__(
        self,
        launch: Callable[[int], Supervised],
        log: LogStream,
        startup_timeout_seconds: float,
        is_healthy: Callable[[urllib3.HTTPConnectionPool], bool],
    ):
        self.healthy = False
        self.exits = 0
        """How often the process has ended since it was last healthy."""
        self.failure: str | None = None
        """Why the container cannot be started at all."""
        self.load = 0
        """How many requests it is answering."""
        self._launch = launch
        self._log = log
        self._startup_timeout_seconds = startup_timeout_seconds
        self._is_healthy = is_healthy
        self._lock = threading.Lock()
        self._stop_requested = threading.Event()
        self._grace_seconds: float = TERMINATION_GRACE_SECONDS
        self._process: Supervised | None = None
        self._connections: urllib3.HTTPConnectionPool | None = None
        self._first_start: float | None = None
        self._thread = threading.Thread(target=self._keep_running, name="server of an endpoint", daemon=True)
        self._thread.start()

    def seconds_since_start(self) -> float:
        """Since the first start of the process; 0 while the launcher still prepares it (AWS does not count that)."""
        return 0 if self._first_start is None else time.monotonic() - self._first_start

    def post(self, body: bytes, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        connections = self._connections
        if connections is None:
            raise urllib3.exceptions.ProtocolError("the server is not running")
        self._add_load(1)
        try:
            return _post(connections, body, headers)
        except urllib3.exceptions.ProtocolError:
            # A kept connection that the server has just closed for idleness looks the same as a server that died over
            # this request, so it is asked once more, on a new connection.
            with urllib3.HTTPConnectionPool(connections.host, connections.port, maxsize=1) as fresh:
                return _post(fresh, body, headers)
        finally:
            self._add_load(-1)

    def request_stop(self, grace_seconds: float) -> None:
        """Begin to end the process: SIGTERM, and SIGKILL after the grace."""
        with self._lock:
            self._grace_seconds = grace_seconds
            self._stop_requested.set()
            if self._process is not None:
                self._process.begin_termination(grace_seconds)

    def wait(self, timeout_seconds: float | None = None) -> None:
        self._thread.join(timeout_seconds)

    def _keep_running(self) -> None:
        try:
            while not self._stop_requested.is_set():
                exit_code = self._run()
                self.exits += 1
                if self._stop_requested.is_set():
                    return
                delay = min(0.1 * 2**self.exits, LONGEST_RESTART_DELAY_SECONDS)
                self._log.write(f"The server ended with exit code {exit_code}. It is started again in {delay:.1f} s.")
                self._log.flush()
                self._stop_requested.wait(delay)
        except (LaunchError, OSError) as error:
            self._log.write(f"The server cannot be started: {error}")
            self.failure = str(error)[:1024]
        except Exception as error:
            logger.exception("a server of an endpoint is kept no longer")
            self.failure = f"InternalServerError: {error!r}"[:1024]
        finally:
            self._log.flush()

    def _run(self) -> int:
        """Start the process, watch it, and return its exit code once it has ended, by itself or because it must."""
        port = _free_port()
        process = self._launch(port)
        with self._lock:
            self._process = process
            if self._stop_requested.is_set():
                process.begin_termination(self._grace_seconds)
        self._first_start = self._first_start or time.monotonic()
        # Connections beyond maxsize are closed after use; none is made to wait.
        connections = self._connections = urllib3.HTTPConnectionPool("127.0.0.1", port, maxsize=64)
        try:
            self._watch(process, connections)
        finally:
            self.healthy = False
            exit_code = process.terminate(self._grace_seconds)
            connections.close()
        return exit_code

    def _watch(self, process: Supervised, connections: urllib3.HTTPConnectionPool) -> None:
        """Return when the process has ended or must be replaced."""
        last_answer = time.monotonic()
        next_ping = next_flush = 0.0
        while process.wait(LOG_INTERVAL_SECONDS if self.healthy else 0.02) is None:
            now = time.monotonic()
            if now >= next_ping:
                if self._is_healthy(connections):
                    self.healthy, self.exits = True, 0
                    last_answer, next_ping = now, now + PING_INTERVAL_SECONDS
                elif now - last_answer > (UNHEALTHY_SECONDS if self.healthy else self._startup_timeout_seconds):
                    self._log.write(
                        f"The server did not answer GET /ping for {now - last_answer:.0f} s: it is replaced."
                    )
                    return
                else:
                    next_ping = now + 0.1
            if now >= next_flush:
                self._log.flush()
                next_flush = now + LOG_INTERVAL_SECONDS

    def _add_load(self, change: int) -> None:
        with self._lock:
            self.load += change


def _launch(
    launcher: Callable[[ServingContainer], ProcessSpec],
    model_folder: Path,
    work_folder: Path,
    environment: Mapping[str, str],
    log: LogStream,
) -> Callable[[int], Supervised]:
    def launch(port: int) -> Supervised:
        shutil.rmtree(work_folder, ignore_errors=True)
        work_folder.mkdir(parents=True)
        own = {"HOME": str(work_folder), "TMPDIR": str(work_folder), **environment}
        return spawn(launcher(ServingContainer(model_folder, port, work_folder, own, log.write)), log.write)

    return launch


def _unpack(archive: Path, folder: Path, url: str) -> None:
    try:
        with tarfile.open(archive, "r:gz") as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DeploymentFailed(
            f'Failed to extract model data archive from URL "{url}". Please ensure that the object located at the URL '
            f"is a valid tar.gz archive. ({error})"
        ) from error


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _post(connections: urllib3.HTTPConnectionPool, body: bytes, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
    return connections.urlopen(
        "POST",
        "/invocations",
        body=body,
        headers=headers,
        retries=False,
        redirect=False,
        decode_content=False,
        timeout=urllib3.Timeout(connect=PING_TIMEOUT_SECONDS, read=INVOCATION_TIMEOUT_SECONDS),
    )


def _answers_ping(connections: urllib3.HTTPConnectionPool) -> bool:
    try:
        return connections.urlopen("GET", "/ping", retries=False, timeout=PING_TIMEOUT_SECONDS).status == 200
    except urllib3.exceptions.HTTPError:
        return False
