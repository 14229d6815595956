"""The serving code over real HTTP, when more is asked than it can answer, and when it is about to end."""

import json
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from localcloud.containers.environments import Environments
from tests.waiting import PATIENCE_SECONDS, wait_for

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WAITING = 3


@dataclass(frozen=True)
class Server:
    """A server whose engine is held until `release`."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path
    image: bytes

    def ask(self) -> tuple[int, dict[str, str]]:
        url = f"http://127.0.0.1:{self.port}/"
        request = urllib.request.Request(url, self.image, {"Content-Type": "image/jpeg"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as response:
                return response.status, json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/healthz", timeout=PATIENCE_SECONDS):
                return True
        except OSError:
            return False

    def release(self) -> None:
        (self.folder / "released").touch()


@pytest.fixture(scope="module")
def python() -> Path:
    return Environments().with_requirements("ray", ROOT / "inference_code" / "requirements.txt", print).python


@pytest.fixture(scope="module")
def artifact(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("overload") / "artifact"
    script = ROOT / "tests" / "unit" / "inference_code" / "tiny_artifact.py"
    subprocess.run([python, script, folder], check=True)
    return folder


@pytest.fixture
def server(python: Path, artifact: Path, tmp_path: Path) -> Iterator[Server]:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
    process = subprocess.Popen([str(part) for part in (python, HERE / "held_server.py", artifact, port, tmp_path)])
    held = Server(process, port, tmp_path, (artifact / "golden" / "0.jpg").read_bytes())
    try:
        wait_for(held.healthy)
        yield held
    finally:
        process.kill()
        process.wait()


def test_more_than_may_wait_is_refused_at_once_with_a_reason(server: Server):
    with ThreadPoolExecutor(4 * WAITING) as clients:
        asked = [clients.submit(server.ask) for _ in range(4 * WAITING)]
        wait_for(lambda: sum(one.done() for one in asked) == 3 * WAITING)
        refused = [one.result() for one in asked if one.done()]
        server.release()
        answered = [one.result() for one in asked if one.result() not in refused]

    assert [status for status, _ in refused] == [503] * 3 * WAITING
    for _, body in refused:
        assert body["error"] == "Overloaded"
        assert f"{WAITING} images are waiting" in body["reason"]
    assert [status for status, _ in answered] == [200] * WAITING
    assert server.ask()[0] == 200


def test_a_server_that_is_told_to_end_answers_what_it_has_and_takes_nothing_more(server: Server):
    with ThreadPoolExecutor(1) as client:
        there = client.submit(server.ask)
        wait_for((server.folder / "asked").exists)
        server.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not server.healthy())
        status, body = server.ask()
        assert (status, body["error"]) == (503, "ShuttingDown")
        assert not there.done()
        server.release()
        assert there.result()[0] == 200
    assert server.process.wait(PATIENCE_SECONDS) == 0
