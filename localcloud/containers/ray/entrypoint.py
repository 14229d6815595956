"""The entry point of the Ray Serve image. It runs in the image's environment and sees nothing else of this package.

    entrypoint.py MODEL_FOLDER PORT

It starts Ray, deploys the application of MODEL_FOLDER/config.yaml (or of SM_RAYSERVE_APP), and is SageMaker's adapter
to it on 127.0.0.1:PORT. Whoever starts it ends what is left when it has ended: Ray's daemons do not end with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
HOST = "127.0.0.1"
LOOPBACK_NAMES = (HOST, "localhost", "::1", "0.0.0.0")
RAY_FOLDERS = Path("/tmp")
RAY_FOLDER_PREFIX = "localcloud-ray-"
SMALLEST_OBJECT_STORE_BYTES = 75 * 1024 * 1024  # Ray refuses less
RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # the node's address is 127.0.0.1, and all daemons listen there
    "AUTOSCALER_METRIC_PORT": "0",  # any free port instead of a fixed one
    "DASHBOARD_METRIC_PORT": "-1",  # none
    "__RAY_WORKER_PROCESS_SETUP_HOOK_ENV_VAR": "localcloud_ray_loopback.bind",
    "RAY_COLOR_PREFIX": "0",
    "NO_COLOR": "1",
}


def main(model_folder: Path, port: int) -> int:
    """Serve until SIGTERM; return the exit code."""
    application = _application(model_folder)
    if application is None:
        print(f"ERROR: No Ray Serve application found: neither {model_folder}/config.yaml nor SM_RAYSERVE_APP")
        return 1
    with _ray_folder() as folder:
        ray_port, dashboard_port, agent_port, serve_port, backend_port = _free_ports(5)
        backend = _backend(os.environ.get("RAYSERVE_BACKEND_URL"), serve_port, backend_port)
        # fmt: off
        steps = [
            ["ray", "start", "--head", f"--port={ray_port}", "--include-dashboard=False", "--num-gpus=0",
             f"--temp-dir={folder}", f"--object-store-memory={SMALLEST_OBJECT_STORE_BYTES}",
             f"--dashboard-port={dashboard_port}", f"--dashboard-agent-listen-port={agent_port}",
             "--no-monitor", "--min-worker-port=0", "--max-worker-port=0"],
            ["serve", "start", f"--address={HOST}:{ray_port}", f"--http-host={HOST}", f"--http-port={serve_port}"],
            ["serve", "run", f"--address={HOST}:{ray_port}", application],
        ]
        # fmt: on
        environment = {
            **os.environ,
            **RAY_ENVIRONMENT,
            **({"RAYSERVE_BACKEND_URL": backend} if "RAYSERVE_BACKEND_URL" in os.environ else {}),
            "RAY_TMPDIR": str(folder),
            "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(HERE / "worker")])),
        }
        # -P: the folder of this file is none of the application's business
        command = [sys.executable, "-P", str(HERE / "steps.py"), json.dumps(steps)]
        with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL) as running:
            try:
                import adapter  # while Ray is starting

                if not _wait_until_listening(serve_port, running):
                    print(f"ERROR: Ray Serve ended with {running.returncode} before it listened")
                    return 1
                adapter.serve(HOST, port, backend)
            finally:
                running.kill()
    return 0


def _backend(asked: str | None, serve_port: int, own_port: int) -> str:
    """Return the URL that the adapter sends requests to, and that the application is told.

    A port of the container's own loopback is one that all containers have; here each gets another for it.
    """
    if asked is None:
        return f"http://{HOST}:{serve_port}"
    return f"http://{HOST}:{own_port}" if urlsplit(asked).hostname in LOOPBACK_NAMES else asked


def _application(model_folder: Path) -> str | None:
    config = model_folder / "config.yaml"
    return str(config) if config.is_file() else os.environ.get("SM_RAYSERVE_APP")


@contextlib.contextmanager
def _ray_folder() -> Iterator[Path]:
    """Make a folder with a short path for Ray's sockets and logs, and remove it in the end.

    Those that killed servers left behind are removed first.
    """
    for left in RAY_FOLDERS.glob(f"{RAY_FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's; or removed meanwhile
            if time.time() - left.stat().st_mtime > 60 and _lock(left) is not None:
                shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=RAY_FOLDER_PREFIX, dir=RAY_FOLDERS))
    lock = _lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """Lock a folder until the descriptor is closed or its process ends; None if another process holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for bound in sockets:
            bound.bind((HOST, 0))
        return [bound.getsockname()[1] for bound in sockets]


def _wait_until_listening(port: int, process: subprocess.Popen[bytes]) -> bool:
    """Return whether the process brought somebody to listen at the port, before it ended."""
    while process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), timeout=1):
            return True
        time.sleep(0.05)
    return False


def _end(*_: object) -> NoReturn:
    sys.exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _end)
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
