"""Repairs of MiniStack's Lambda: Python functions run as Lambda runs them, in processes that end with the cloud.

Only the cloud's own Python is at hand: every `python3.*` function runs on it (function_packages.py refuses others).
"""

import contextlib
import hashlib
import io
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ministack.core import lambda_runtime
from ministack.core.responses import new_uuid
from ministack.services import lambda_svc

from localcloud.cloud import client_environment
from localcloud.ministack import lambda_worker
from localcloud.ministack.repairs import Repair

INIT_SECONDS = 60
"""On AWS 10, with processors of its own; here a training may have them all.
https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html#runtimes-lifecycle-ib"""

LOG_SECONDS = 2

# What Lambda's Python runtimes carry beside the standard library.
RUNTIME_PACKAGES = ("boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six", "urllib3")

WAKE_GAP_SECONDS = 0.005
"""How long the poller of queues rests after it woke for nothing, as it does for messages that no function waits for.
MiniStack's 50 ms were more than half of what the inbox took for a photograph (benchmarks/inbox_latency.py)."""


def install(folder: Path, port: int) -> None:
    """Run functions from `folder`, against the cloud on `port`. To be called once, after the repairs."""
    _Environment.current = _Environment(folder, port)
    lambda_svc._ESM_IDLE_WAKE_GAP_SECONDS = WAKE_GAP_SECONDS


class _Environment:
    """Where packages are unpacked, once each, and the libraries of the runtime lie."""

    current: "_Environment"

    def __init__(self, folder: Path, port: int):
        self.folder, self.port = folder, port
        self.runtime_folder = folder / "runtime"
        self.runtime_folder.mkdir(parents=True)
        self._unpacking = threading.Lock()
        for package in RUNTIME_PACKAGES:
            spec = find_spec(package)
            if spec is None or spec.origin is None:
                raise RuntimeError(
                    f"{package}, which Lambda's runtime carries, is not installed beside the local cloud"
                )
            origin = Path(spec.origin)
            source = origin.parent if origin.name == "__init__.py" else origin
            (self.runtime_folder / source.name).symlink_to(source)

    def unpacked(self, package: bytes) -> Path:
        target = self.folder / "packages" / hashlib.sha256(package).hexdigest()[:24]
        with self._unpacking:
            if not target.exists():
                target.parent.mkdir(exist_ok=True)
                unfinished = Path(tempfile.mkdtemp(dir=target.parent))
                with zipfile.ZipFile(io.BytesIO(package)) as archive:
                    archive.extractall(unfinished)
                unfinished.rename(target)
        return target


class InitFailed(Exception):
    """The process that is to run a function did not come up."""


class LambdaWorker(lambda_runtime.Worker):
    """One execution environment: a process that answers one invocation after the other."""

    _proc: Any  # a _ProcessGroup, or None before the first invocation and after a time-out
    _answers: "queue.SimpleQueue[str | None]"
    _log: "queue.SimpleQueue[str | None]"

    def invoke(
        self,
        event: Any,
        request_id: str,
        *,
        trace_id: str | None = None,
        invoked_function_arn: str | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """Return `{"result", "log"}` or `{"error", "log"}`, the error as Lambda's runtime words it."""
        with self._lock:
            if self._proc is None or self._proc.poll() is not None:
                self._spawn()
            timeout = self.config.get("Timeout", 3)
            self._send(
                {
                    "event": event,
                    "request_id": request_id,
                    "trace_id": trace_id,
                    "function_arn": invoked_function_arn or self.config["FunctionArn"],
                }
            )
            try:
                answer = self._answers.get(timeout=timeout)
            except queue.Empty:
                reason = f"RequestId: {request_id} Error: Task timed out after {timeout}.00 seconds"
                return self._ended({"errorType": "Sandbox.Timedout", "errorMessage": reason})
            if answer is None:
                code = self._proc.wait()
                status = f"signal: {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
                reason = f"RequestId: {request_id} Error: Runtime exited with error: {status}"
                return self._ended({"errorType": "Runtime.ExitError", "errorMessage": reason})
            outcome = json.loads(answer)
            if outcome.pop("exit", False):
                return self._ended(outcome["error"])
            return {**outcome, "log": self._read_log()}

    def _ended(self, error: dict[str, str]) -> dict[str, Any]:
        process, self._proc = self._proc, None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its children too, even if it has ended itself
        process.wait()
        return {"error": error, "log": f"{self._read_log()}\n{error['errorMessage']}".lstrip()}

    def _spawn(self) -> None:
        environment = _Environment.current
        code_folder = environment.unpacked(self.code_zip)
        layers = [environment.unpacked(layer) for layer in self._layers()]
        self._discard_tmpdir()
        self._tmpdir = tempfile.mkdtemp(prefix="tmp-", dir=environment.folder)
        self._proc = _ProcessGroup(
            [sys.executable, "-S", "-P", lambda_worker.__file__],
            cwd=code_folder,
            env=self._process_environment(code_folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self._answers, self._log = queue.SimpleQueue(), queue.SimpleQueue()
        for stream, lines in ((self._proc.stdout, self._answers), (self._proc.stderr, self._log)):
            threading.Thread(
                target=_read_lines, args=(stream, lines), name=f"lambda-{self.func_name}", daemon=True
            ).start()
        self._send(
            {
                "handler": self.config["Handler"],
                "code_folder": str(code_folder),
                "import_path": [str(path) for layer in layers for path in _import_path(layer)],
                "runtime_folder": str(environment.runtime_folder),
                "timeout_seconds": self.config.get("Timeout", 3),
            }
        )
        try:
            ready = self._answers.get(timeout=max(INIT_SECONDS, self.config.get("Timeout", 3)))
        except queue.Empty:
            ready = None
        if ready is None:
            self._proc.kill()
            raise InitFailed(f"the function {self.func_name} did not initialise: {self._read_log()}")

    def _layers(self) -> Iterator[bytes]:
        for layer in self.config.get("Layers", []):
            content = lambda_svc._resolve_layer_zip(layer)
            if content is None:
                raise InitFailed(f"the layer {layer} of the function {self.func_name} has no content")
            yield content

    def _process_environment(self, code_folder: Path) -> dict[str, str]:
        """Lambda's own variables and the function's, and nothing of the host's but what the interpreter needs.

        https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
        """
        config = self.config
        credentials = lambda_runtime.execution_credentials(config)
        access = client_environment(_Environment.current.port)
        name = config["FunctionName"]
        own = {
            "AWS_EXECUTION_ENV": f"AWS_Lambda_{config['Runtime']}",
            "AWS_LAMBDA_FUNCTION_NAME": name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(config.get("MemorySize", 128)),
            "AWS_LAMBDA_FUNCTION_VERSION": config.get("Version", "$LATEST"),
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_LAMBDA_LOG_GROUP_NAME": (config.get("LoggingConfig") or {}).get("LogGroup", f"/aws/lambda/{name}"),
            "AWS_LAMBDA_LOG_STREAM_NAME": new_uuid(),
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "LAMBDA_TASK_ROOT": str(code_folder),
            "LANG": "en_US.UTF-8",
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "TMPDIR": str(self._tmpdir),
            "TZ": ":UTC",
            "_HANDLER": config["Handler"],
        }
        given = (config.get("Environment") or {}).get("Variables") or {}
        reserved = lambda_runtime._RESERVED_RUNTIME_ENV_VARS
        interpreter = {key: os.environ[key] for key in ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH") if key in os.environ}
        chosen = {key: str(value) for key, value in given.items() if key not in reserved}
        return interpreter | own | access | chosen | credentials

    def _send(self, document: dict[str, Any]) -> None:
        try:
            self._proc.stdin.write(json.dumps(document) + "\n")
            self._proc.stdin.flush()
        except BrokenPipeError:
            return  # the process has ended: the end of its answers tells

    def _read_log(self) -> str:
        """What was logged up to the end of the invocation, or of the process."""
        lines = []
        with contextlib.suppress(queue.Empty):  # a process that the handler left behind holds the log open
            while (line := self._log.get(timeout=LOG_SECONDS)) is not None:
                written, mark, _ = line.partition(lambda_worker.END_OF_LOG)
                lines.append(written)
                if mark:
                    break
        return "".join(lines).rstrip("\n")


class _ProcessGroup(subprocess.Popen):
    """Signals reach the children of the process as well."""

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.killpg(self.pid, number)


def _read_lines(stream: Any, lines: "queue.SimpleQueue[str | None]") -> None:
    with stream:
        for line in stream:
            lines.put(line)
    lines.put(None)


def _import_path(layer: Path) -> Iterator[Path]:
    python = layer / "python"
    yield python
    yield from sorted(python.glob("lib/python3.*/site-packages"))


def _worker_class_for(_original: Callable[..., Any]) -> Callable[..., Any]:
    def worker_class_for(_config: dict) -> type[LambdaWorker]:
        return LambdaWorker

    return worker_class_for


def _execute_function_warm(_original: Callable[..., Any]) -> Callable[..., Any]:
    """Hands the runtime's own error through, and keeps the process: only one that ended or timed out is replaced."""

    def execute(function: dict, event: Any, request_id: str) -> dict[str, Any]:
        config = function.get("config") or function
        if not function.get("code_zip"):
            return _error("Runtime.Unknown", f"the function {config['FunctionName']} has no package")
        lambda_svc._ensure_reaper_thread()
        worker, reason = lambda_runtime.acquire_worker(
            config["FunctionName"], config, function["code_zip"], qualifier=config.get("Version", "$LATEST")
        )
        if worker is None:
            return _error("Runtime.Unknown", reason)
        try:
            outcome = worker.invoke(
                event,
                request_id,
                trace_id=lambda_svc._xray_trace_id_for_invocation(config),
                invoked_function_arn=config["FunctionArn"],
            )
        except InitFailed as error:
            return _error("Runtime.Unknown", str(error))
        finally:
            lambda_runtime.release_worker(worker)
        if "error" in outcome:
            return {"body": outcome["error"], "error": True, "log": outcome["log"]}
        return {"body": outcome["result"], "log": outcome["log"]}

    return execute


def _error(error_type: str, message: str) -> dict[str, Any]:
    return {"body": {"errorType": error_type, "errorMessage": message}, "error": True, "log": message}


REPAIRS = [
    Repair(
        "a worker inherits the host's environment, waits 50 ms on each warm call, and outlives a killed cloud",
        lambda_runtime.__name__,
        "_worker_class_for",
        "b5a23849280a",
        _worker_class_for,
    ),
    Repair(
        "errorType is always Runtime.HandlerError, and a handled exception ends the worker",
        lambda_svc.__name__,
        "_execute_function_warm",
        "62b9218bef5b",
        _execute_function_warm,
    ),
]
