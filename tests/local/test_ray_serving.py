"""The Ray image's launcher and our serving code on real Ray: fleets side by side, with a backend of their own and
behind Ray's proxy, and one of an artifact that is broken for each way.

All are started from what is in model.tar.gz, by a process of their own, so that it can be killed.
"""

import contextlib
import http.server
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from localcloud.containers.environments import Environment, Environments
from tests.local.processes import running
from tests.waiting import PATIENCE_SECONDS, wait_for

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
GOOD, BROKEN = ("good", "lean"), ("broken", "lean-broken")
NAMES = (*GOOD, *BROKEN)
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")


@pytest.fixture(scope="module")
def environment() -> Environment:
    return Environments().with_requirements("ray", ROOT / "inference_code" / "requirements.txt", print)


@pytest.fixture(scope="class")
def fleets(environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Iterator["Fleets"]:
    folder = tmp_path_factory.mktemp("fleets")
    made = folder / "made"
    script = ROOT / "tests" / "unit" / "inference_code" / "tiny_artifact.py"
    subprocess.run([environment.python, script, made], check=True)
    archive = folder / "model.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(made, arcname="")
    for name in NAMES:
        with tarfile.open(archive) as tar:
            tar.extractall(folder / name, filter="data")
    for name in BROKEN:
        path = folder / name / "model.json"
        description = json.loads(path.read_text())
        description["golden"][0]["logits"][0] += 0.1
        path.write_text(json.dumps(description))
    started = Fleets.start(folder)
    try:
        started.wait_until(lambda: all(started.ping(name) == 200 for name in GOOD))
        yield started
    finally:
        started.cloud.kill()
        started.cloud.wait()


@pytest.fixture(scope="class")
def backend() -> Iterator[http.server.ThreadingHTTPServer]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.healthy = True  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="class")
def adapter(environment: Environment, backend: http.server.ThreadingHTTPServer) -> Iterator[str]:
    port, folder = free_port(), ROOT / "localcloud" / "containers" / "ray"
    code = "import adapter, sys; adapter.serve('127.0.0.1', int(sys.argv[1]), sys.argv[2])"
    command = [environment.python, "-c", code, str(port), f"http://127.0.0.1:{backend.server_port}"]
    variables = {**os.environ, "RAYSERVE_BACKEND_TIMEOUT": "5"}
    process = subprocess.Popen(command, cwd=folder, env=variables)
    wait_for(lambda: ask(f"http://127.0.0.1:{port}/ping").status)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    assert process.wait(PATIENCE_SECONDS) == 0


@pytest.mark.slow
class TestFleets:
    @pytest.mark.parametrize("name", GOOD)
    def test_an_image_gets_the_answer_that_the_artifact_has_for_it(self, fleets: "Fleets", name: str):
        description = json.loads((fleets.folder / name / "model.json").read_text())
        for golden in description["golden"]:
            image = (fleets.folder / name / golden["file"]).read_bytes()
            answer = fleets.post(name, image, golden["content_type"])
            assert answer.headers["x-amzn-sagemaker-custom-attributes"] == "variant=float32"
            assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
            exponentials = [math.exp(logit / description["temperature"]) for logit in golden["logits"]]
            predictions = json.loads(answer.body)["predictions"]
            assert predictions[0]["label"] == golden["label"]
            assert predictions[0]["probability"] == pytest.approx(max(exponentials) / sum(exponentials), abs=1e-3)
            assert len(predictions) == 5
            assert json.loads(answer.body)["model"] == {
                "run_id": description["run_id"],
                "weights_sha256": description["weights_sha256"],
                "confidence_threshold": description["confidence_threshold"],
                "package_arn": None,
            }

    @pytest.mark.parametrize(
        ("body", "content_type", "status", "error"),
        [
            (b"no image", "image/jpeg", 400, "UnreadableImage"),
            (b"\xff\xd8\xff" + b"0" * 3_000_000, "image/jpeg", 400, "UnreadableImage"),
            (b"GIF89a", "image/png", 415, "UnsupportedMediaType"),
            (b"a,b", "text/csv", 415, "UnsupportedMediaType"),
        ],
    )
    def test_bad_input_gets_a_reason(self, fleets: "Fleets", body: bytes, content_type: str, status: int, error: str):
        for name in GOOD:
            answer = fleets.post(name, body, content_type)
            assert (answer.status, answer.headers["Content-Type"]) == (status, "application/json")
            assert json.loads(answer.body)["error"] == error

    def test_an_artifact_with_a_wrong_golden_answer_is_never_healthy(self, fleets: "Fleets"):
        fleets.wait_until(lambda: all("is 0.1 off what model.json says" in fleets.log(name) for name in BROKEN))
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            assert not any(fleets.ping(name) == 200 for name in BROKEN)
            time.sleep(0.2)
        assert all(fleets.ping(name) == 200 for name in GOOD)

    @LINUX
    def test_a_replica_that_is_killed_is_replaced(self, fleets: "Fleets"):
        fleets.wait_until(lambda: len(fleets.replicas("lean")) == 1)
        (replica,) = fleets.replicas("lean")
        os.kill(replica, signal.SIGKILL)
        fleets.wait_until(lambda: fleets.replicas("lean") not in ([], [replica]))
        fleets.wait_until(lambda: fleets.ping("lean") == 200)
        golden = json.loads((fleets.folder / "lean" / "model.json").read_text())["golden"][0]
        image = (fleets.folder / "lean" / golden["file"]).read_bytes()
        assert fleets.post("lean", image, golden["content_type"]).status == 200

    def test_nothing_of_the_repository_can_be_imported(self, fleets: "Fleets", environment: Environment):
        spec = json.loads((fleets.folder / "good.spec.json").read_text())
        find = "import importlib.util as u; print([bool(u.find_spec(name)) for name in {}])"
        names = ["inference", "deployment", "localcloud", "inference_code", "training_code", "kelpie"]
        command = [environment.python, "-c", find.format(names)]
        found = subprocess.run(command, env=spec["env"], cwd=spec["cwd"], capture_output=True, check=True)
        assert json.loads(found.stdout.decode().lower()) == [True, True, False, False, False, False]

    @LINUX
    def test_they_listen_to_this_machine_alone(self, fleets: "Fleets"):
        addresses = {host for pid in fleets.processes() for host in listening(pid)}
        assert addresses
        assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1"}

    def test_our_repair_of_ray_is_still_needed(self, environment: Environment):
        (replica,) = (path for layer in environment.layers for path in layer.glob("**/ray/serve/_private/replica.py"))
        assert 'self._server.add_insecure_port("[::]:0")' in replica.read_text()

    @LINUX
    def test_nothing_outlives_a_kill_of_what_started_them(self, fleets: "Fleets"):
        assert len(fleets.processes()) > 15
        fleets.cloud.send_signal(signal.SIGKILL)
        fleets.wait_until(lambda: not fleets.processes())


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Fleets:
    """The servers, and the process that started them."""

    folder: Path
    ports: dict[str, int]
    mark: str
    cloud: subprocess.Popen

    @classmethod
    def start(cls, folder: Path) -> "Fleets":
        ports, mark = {name: free_port() for name in NAMES}, uuid.uuid4().hex
        command = [sys.executable, str(HERE / "ray_fleets.py"), str(folder), mark, json.dumps(ports)]
        return cls(folder, ports, mark, subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}))

    def ping(self, name: str) -> int:
        return ask(f"http://127.0.0.1:{self.ports[name]}/ping").status

    def post(self, name: str, body: bytes, content_type: str) -> Answer:
        return ask(f"http://127.0.0.1:{self.ports[name]}/invocations", body, {"Content-Type": content_type})

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def processes(self) -> list[int]:
        """All processes that have the fleets' mark in their environment."""
        return [process.pid for process in running() if self.mark in process.environment]

    def replicas(self, name: str) -> list[int]:
        """The processes of a fleet that hold a replica, as Ray names them."""
        own = str(self.folder / f"{name}.work")
        return [
            process.pid
            for process in running()
            if process.name.startswith("ray::ServeRepl")
            and self.mark in process.environment
            and own in process.environment
        ]

    def wait_until(self, condition: Callable[[], bool]) -> None:
        wait_for(condition, lambda: "".join(map(self.log, NAMES)), pause_seconds=0.1)


class TestAdapter:
    """Against a backend that echoes what it gets, without Ray."""

    def test_content_type_accept_and_sagemaker_headers_go_to_ray_and_no_others(self, adapter: str):
        headers = {"Content-Type": "image/png", "X-Amzn-SageMaker-Custom-Attributes": "a=b", "X-Other": "1"}
        echoed = json.loads(ask(f"{adapter}/invocations", b"body", headers).body)
        assert echoed["path"] == "/"
        assert echoed["body"] == "body"
        assert echoed["headers"]["content-type"] == "image/png"
        assert echoed["headers"]["x-amzn-sagemaker-custom-attributes"] == "a=b"
        assert "x-other" not in echoed["headers"]

    def test_json_is_what_a_request_is_and_wants_unless_it_says_otherwise(self, adapter: str):
        host, port = adapter.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                b"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
            )
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        echoed = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert (echoed["headers"]["content-type"], echoed["headers"]["accept"]) == ("application/json",) * 2

    def test_of_the_answer_status_body_content_type_and_sagemaker_headers_come_back(self, adapter: str):
        answer = ask(f"{adapter}/invocations", b"teapot", {"Content-Type": "text/plain"})
        assert answer.status == 418
        assert answer.headers["Content-Type"] == "text/x-echo"
        assert answer.headers["X-Amzn-SageMaker-Echo"] == "yes"
        assert "X-Backend" not in answer.headers

    @pytest.mark.parametrize(
        "header", ["Origin: https://evil.example", "Sec-Fetch-Site: cross-site", "Host: evil.example"]
    )
    def test_a_web_page_is_refused(self, adapter: str, header: str):
        assert ask(f"{adapter}/invocations", b"body", dict([header.split(": ")])).status == 403

    def test_health_is_the_backends(self, adapter: str, backend: http.server.ThreadingHTTPServer):
        assert ask(f"{adapter}/ping") == Answer(200, ask(f"{adapter}/ping").headers, b"")
        backend.healthy = False  # type: ignore[attr-defined]
        assert ask(f"{adapter}/ping").status == 503

    def test_a_backend_that_takes_too_long_is_a_504(self, adapter: str):
        answer = ask(f"{adapter}/invocations", b"sleep", {})
        assert (answer.status, json.loads(answer.body)) == (504, {"error": "Request timeout"})

    def test_a_backend_that_is_gone_is_a_503(self, adapter: str, backend: http.server.ThreadingHTTPServer):
        backend.shutdown()
        backend.server_close()
        answer = ask(f"{adapter}/invocations", b"body", {})
        assert (answer.status, json.loads(answer.body)) == (503, {"error": "Service unavailable"})
        assert ask(f"{adapter}/ping").status == 503


class Echo(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if body == "sleep":
            time.sleep(6)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self._answer(418 if body == "teapot" else 200, {"path": self.path, "headers": headers, "body": body})

    def do_GET(self) -> None:
        healthy = self.path == "/-/healthz" and self.server.healthy  # type: ignore[attr-defined]
        self._answer(200 if healthy else 503, {})

    def _answer(self, status: int, answer: dict) -> None:
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/x-echo")
        self.send_header("X-Amzn-SageMaker-Echo", "yes")
        self.send_header("X-Backend", "echo")
        self.send_header("Content-Length", str(len(content)))
        with contextlib.suppress(BrokenPipeError):  # who asked did not wait
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def ask(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
    """GET, or POST if there is a body; status 0 if nobody answers."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers or {}), timeout=60) as response:
            return Answer(response.status, dict(response.headers), response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, dict(error.headers), error.read())
    except OSError:
        return Answer(0, {}, b"")


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def listening(pid: int) -> set[str]:
    """The addresses at which a process listens, from /proc."""
    try:
        sockets = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir()}
        tables = {
            family: Path(f"/proc/{pid}/net/{table}").read_text()
            for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6))
        }
    except OSError:  # it has ended meanwhile
        return set()
    addresses = set()
    for family, table in tables.items():
        for line in table.splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                words = bytes.fromhex(fields[1].partition(":")[0])
                packed = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
                addresses.add(socket.inet_ntop(family, packed))
    return addresses
