"""The servers of an endpoint: one container each, a process that is kept running and asked for its health."""

from __future__ import annotations

import logging
import shutil
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import urllib3

from localcloud.containers.images import LaunchError, ServingContainer
from localcloud.processes import ProcessSpec, Supervised, spawn
from localcloud.sagemaker.logs import LogStream

logger = logging.getLogger(__name__)

PING_TIMEOUT_SECONDS = 2
"""AWS's. A slower answer counts as none."""
PING_INTERVAL_SECONDS = 5
UNHEALTHY_SECONDS = 60
"""A server that answered once is replaced after so long without an answer: long, as a laptop may be training, too."""
INVOCATION_TIMEOUT_SECONDS = 60
TERMINATION_GRACE_SECONDS = 10
LONGEST_RESTART_DELAY_SECONDS = 30
LOG_INTERVAL_SECONDS = 0.5


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


def launch_of(
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


def answers_ping(connections: urllib3.HTTPConnectionPool) -> bool:
    try:
        return connections.urlopen("GET", "/ping", retries=False, timeout=PING_TIMEOUT_SECONDS).status == 200
    except urllib3.exceptions.HTTPError:
        return False
