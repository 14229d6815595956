"""Start, stop and reach a local cloud that is kept under a folder, its *home*.

The server is a process of its own (`python -m localcloud serve`). It holds a lock on its home while it lives, so a
crash is never mistaken for a running cloud, nor a reused process id for ours.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import boto3

REGION = "us-east-1"
ACCOUNT_ID = "000000000000"
ALREADY_RUNNING_EXIT_CODE = 3
HEALTH_PATH = "/_ministack/health"
FAULTS_PATH = "/_localcloud/faults"
POLL_SECONDS = 0.02
LOG_TAIL_LINES = 20


class LocalCloudError(Exception):
    """Base of what can go wrong around a local cloud."""


class AlreadyRunning(LocalCloudError):
    def __init__(self, pid: int, port: int):
        super().__init__(f"the local cloud already runs on port {port} (process {pid}): use it, or stop it first")
        self.pid, self.port = pid, port


class NotRunning(LocalCloudError):
    def __init__(self, home: Path):
        super().__init__(f"no local cloud runs in {home}: start it first")
        self.home = home


class PortInUse(LocalCloudError):
    def __init__(self, port: int):
        super().__init__(
            f"port {port} on 127.0.0.1 is in use by another program: stop that program, or choose another port"
        )
        self.port = port


class StartFailed(LocalCloudError):
    def __init__(self, reason: str, log_tail: str):
        super().__init__(f"the local cloud did not start: {reason}\n{log_tail}".rstrip())
        self.log_tail = log_tail


class FaultRefused(LocalCloudError):
    """The cloud knows no such fault; the message names the key."""


class LocalCloud:
    """A handle on the cloud kept under `home`. Any number of handles, in any process, see the same cloud."""

    def __init__(self, home: Path):
        self.home = Path(home).resolve()

    def start(self, port: int = 4566, timeout_seconds: float = 120) -> None:
        """Start the server on 127.0.0.1:`port` and return when it answers.

        Raises AlreadyRunning, PortInUse, or StartFailed with the end of the log.
        """
        if self.running():
            raise self._already_running()
        if not _port_is_free(port):
            raise PortInUse(port)
        self.home.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            launched = subprocess.run(
                [sys.executable, "-m", "localcloud", "serve", "--home", self.home, "--port", str(port), "--detach"],
                cwd=Path(__file__).resolve().parents[1],
                env=server_environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if launched.returncode == ALREADY_RUNNING_EXIT_CODE:
            raise self._already_running()
        self._wait_until_ready(port, timeout_seconds)

    def stop(self, timeout_seconds: float = 60) -> None:
        """End the server and all that it started; its state is saved. Does nothing if no cloud runs here.

        A server that does not end in time is killed: what changed in the last seconds is then lost, apart from objects
        in S3. What a crash left behind is cleared up.
        """
        if self.running():
            pid = self._record()["pid"]
            _signal(pid, signal.SIGTERM)
            if not self._wait_until_ended(timeout_seconds):
                _signal(pid, signal.SIGKILL)
                self._wait_until_ended(5)
        HomeLock(self.home).forget_record()

    def running(self) -> bool:
        return HomeLock(self.home).held()

    def crashed(self) -> bool:
        """Whether a cloud ran here that nobody stopped, and runs no more."""
        return not self.running() and HomeLock(self.home).recorded()

    @property
    def port(self) -> int:
        """Raises NotRunning."""
        if not self.running():
            raise NotRunning(self.home)
        return self._record()["port"]

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which any AWS client reaches this cloud. Raises NotRunning.

        The session token is set, and empty, so that one from a login to the real AWS is not sent here.
        """
        return client_environment(self.port)

    def session(self) -> boto3.Session:
        """A boto3 session whose clients reach this cloud, whatever the caller's own AWS configuration says.

        Raises NotRunning.
        """
        return session_at(f"http://127.0.0.1:{self.port}", "test", "test")

    def inject(self, fault: str, **options: Any) -> dict[str, Any]:
        """Make something go wrong: `cloud.inject("Throttling", Action="CreateTrainingJob", Times=3)`.

        docs/local-cloud.md lists the faults and their options. Returns the fault as `faults` tells it.
        Raises FaultRefused and NotRunning.
        """
        return self._ask_for_faults("POST", {"Fault": fault, **options})

    def faults(self) -> list[dict[str, Any]]:
        """The faults that can still happen, each with how often (Times) and how often it has (Happened)."""
        return self._ask_for_faults("GET")

    def clear_faults(self) -> None:
        self._ask_for_faults("DELETE")

    def _ask_for_faults(self, method: str, document: dict[str, Any] | None = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, FAULTS_PATH, None if document is None else json.dumps(document))
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise FaultRefused(answer["message"])
        return answer

    @property
    def _log(self) -> Path:
        return self.home / "cloud.log"

    def _record(self) -> dict[str, Any]:
        return HomeLock(self.home).read_record()

    def _already_running(self) -> AlreadyRunning:
        record = self._record()
        return AlreadyRunning(record["pid"], record["port"])

    def _wait_until_ready(self, port: int, timeout_seconds: float) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not _healthy(port):
            if not self.running():
                raise StartFailed("its process ended", self._log_tail())
            if time.monotonic() > deadline:
                self.stop(timeout_seconds=2)
                raise StartFailed(f"it did not answer within {timeout_seconds:g} seconds", self._log_tail())
            time.sleep(POLL_SECONDS)

    def _wait_until_ended(self, timeout_seconds: float) -> bool:
        deadline = time.monotonic() + timeout_seconds
        while self.running():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _log_tail(self) -> str:
        if not self._log.exists():
            return ""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])


ACQUIRE_SECONDS = 1
RECORD_SECONDS = 10  # from the lock to the record it is a few lines; a busy machine may stop a server between them


class HomeLock:
    """The lock that a server holds on its home as long as it lives, and the record of who holds it."""

    def __init__(self, home: Path):
        self._path = home / "cloud.lock"
        self._record_path = home / "cloud.json"
        self._file: int | None = None

    def acquire(self) -> bool:
        """Take the lock until this process ends. False if another server holds it.

        A caller of `held` has it for a moment, which a busy machine may make a long one.
        """
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        deadline = time.monotonic() + ACQUIRE_SECONDS
        while not (taken := _try_lock(self._file)) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return taken

    def held(self) -> bool:
        try:
            file = os.open(self._path, os.O_RDWR)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            return not _try_lock(file, fcntl.LOCK_SH)  # so that two who look do not take each other for a server
        finally:
            os.close(file)

    def write_record(self, pid: int, port: int) -> None:
        unfinished = self._record_path.with_suffix(".tmp")
        unfinished.write_text(json.dumps({"pid": pid, "port": port}))
        unfinished.replace(self._record_path)

    def read_record(self) -> dict[str, Any]:
        """Return the record; a server that has just taken the lock is given a moment to write it."""
        deadline = time.monotonic() + RECORD_SECONDS
        while not self.recorded() and self.held() and time.monotonic() < deadline:
            time.sleep(0.01)
        return json.loads(self._record_path.read_text())

    def recorded(self) -> bool:
        return self._record_path.exists()

    def forget_record(self) -> None:
        self._record_path.unlink(missing_ok=True)


def client_environment(
    port: int, access_key: str = "test", secret_key: str = "test", token: str = ""
) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": access_key,
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_SESSION_TOKEN": token,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def session_at(endpoint_url: str, access_key: str, secret_key: str, token: str | None = None) -> boto3.Session:
    """A boto3 session bound to `endpoint_url` that reads no file and no profile of the user's."""
    import boto3
    import botocore.config
    import botocore.session

    class LocalSession(boto3.Session):
        def client(self, service_name: str, *args: Any, **options: Any) -> Any:
            return super().client(service_name, *args, **{"endpoint_url": endpoint_url, **options})

        def resource(self, service_name: str, *args: Any, **options: Any) -> Any:
            return super().resource(service_name, *args, **{"endpoint_url": endpoint_url, **options})

    settings = botocore.session.Session(session_vars={"profile": (None, None, None, None)})
    settings.set_config_variable("config_file", os.devnull)
    settings.set_config_variable("credentials_file", os.devnull)
    settings.set_default_client_config(botocore.config.Config(proxies={}))
    settings.set_credentials(access_key, secret_key, token)
    return LocalSession(botocore_session=settings, region_name=REGION)


# What the server must not inherit: the user's AWS identity, settings of MiniStack other than ours, and an import path
# that would put the caller's modules before the cloud's.
_NOT_INHERITED = (
    "AWS_",
    "MINISTACK_",
    "LOCALSTACK_",
    "LAMBDA_",
    "SFN_",
    "S3_",
    "DOCKER_",
    "PYTHON",
    "USE_SSL",
    "SERVICES",
)


def server_environment(environment: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in environment.items() if not name.startswith(_NOT_INHERITED)}
    return kept | {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONUNBUFFERED": "1",
    }


def _try_lock(file: int, kind: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _port_is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", HEALTH_PATH)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
