"""The servers that are measured, ours and the baseline's, and the client that asks them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcloud.containers.environments import Environments
from localcloud.containers.images import ServingContainer
from localcloud.containers.ray import ray_image
from localcloud.processes import ProcessSpec, spawn

HERE = Path(__file__).parent
BACKEND = "http://127.0.0.1:8001"  # as CreateModel sets it
LONGEST_START_SECONDS = 240.0
LOG_LINES = 30


class ServerFailed(Exception):
    """A server ended before it answered; the message is the end of its log."""


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    port: int
    started_seconds: float
    """From the start of its process to its first answer to an image."""
    log: list[tuple[float, str]]
    """Its lines, each with the seconds since its start."""


class Client:
    """Asks servers by load.py, in the benchmark's own environment."""

    def __init__(self, images: Sequence[Path], say: Callable[[str], None]):
        self._images = [str(image) for image in images]
        self.python = Environments().with_requirements("ray", HERE / "requirements.txt", say).python

    def ask(self, server: Server, seconds: float, **how: float) -> dict[str, Any]:
        """Return load.py's document. how: clients=, or rate= a second and evenly=; past_adapter=."""
        given = {"port": server.port, "images": self._images, "seconds": seconds, **how}
        done = subprocess.run(
            [str(self.python), str(HERE / "load.py"), json.dumps(given)], check=True, stdout=subprocess.PIPE, text=True
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


@contextmanager
def ours(artifact: Path, image: Path) -> Iterator[Server]:
    """Serve an artifact as the local cloud's endpoint does."""
    with tempfile.TemporaryDirectory() as folder:
        port = _free_port()
        environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "OMP_WAIT_POLICY": "PASSIVE",
            "RAYSERVE_BACKEND_URL": BACKEND,
        }
        launch = ray_image(Environments()).serving
        assert launch is not None
        spec = launch(ServingContainer(artifact, port, Path(folder), environment, print))
        with _started(spec, port, image) as server:
            yield server


@contextmanager
def baseline(python: Path, artifact: Path, image: Path, workers: int) -> Iterator[Server]:
    """Serve the float32 model the stock way, with so many workers that share the cores."""
    port = _free_port()
    command = [str(python), "-m", "uvicorn", "--app-dir", str(HERE), "baseline:application"]
    options = ["--port", str(port), "--workers", str(workers), "--no-access-log", "--log-level", "warning"]
    environment = {
        "PATH": os.environ["PATH"],
        "OMP_WAIT_POLICY": "PASSIVE",
        "ARTIFACT": str(artifact),
        "THREADS": str(max(1, (os.cpu_count() or 1) // workers)),
    }
    with _started(ProcessSpec([*command, *options], environment, HERE), port, image) as server:
        yield server


@contextmanager
def _started(spec: ProcessSpec, port: int, image: Path) -> Iterator[Server]:
    begun, log = time.perf_counter(), list[tuple[float, str]]()
    process = spawn(spec, lambda line: log.append((round(time.perf_counter() - begun, 2), line)))
    try:
        content = image.read_bytes()
        while not _answers(f"http://127.0.0.1:{port}/invocations", content):
            if process.exit_code is not None or time.perf_counter() - begun > LONGEST_START_SECONDS:
                raise ServerFailed("\n".join(line for _, line in log[-LOG_LINES:]))
            time.sleep(0.05)
        yield Server(port, time.perf_counter() - begun, log)
    finally:
        process.terminate(10)


def _answers(url: str, image: bytes) -> bool:
    request = urllib.request.Request(url, image, {"Content-Type": "image/jpeg", "Accept": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.HTTPError):
        return False


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port
