"""Serve one local cloud on 127.0.0.1 until SIGTERM or Ctrl-C: state is loaded first, and saved last."""

import asyncio
import contextlib
import logging
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from localcloud.cloud import ACCOUNT_ID, REGION
from localcloud.sagemaker.store import RecordUnreadable

STOP_SECONDS = 45
"""How long a clean stop may take before the process ends without it."""

SAVE_SECONDS = 5
"""How often state is saved while requests come in: MiniStack saves it at a clean stop only."""


def serve(home: Path, port: int) -> None:
    """Never returns: what MiniStack leaves running in threads must not keep the process alive."""
    os.chdir(home)
    os.environ.update(settings(home, port))
    # Clients with pools of connections, functions and endpoints come to hundreds, where a shell's usual limit is 1,024.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192) if hard > 0 else 8192), hard))
    shutil.rmtree(home / "lambda", ignore_errors=True)  # what the workers of a crashed cloud left
    exit_code = 1
    try:
        asyncio.run(_serve(home, port))
        exit_code = 0
    except RecordUnreadable as error:
        print(f"{error}. Start the version that kept it, or remove {home} and begin with nothing", file=sys.stderr)
    except Exception:
        logging.getLogger("localcloud").exception("the local cloud ended")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)


def settings(home: Path, port: int) -> dict[str, str]:
    """What MiniStack and its services read from the environment when they are imported."""
    return {
        "AUTH": "true",
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_HOST": "127.0.0.1",
        "MINISTACK_ACCOUNT_ID": ACCOUNT_ID,
        "MINISTACK_REGION": REGION,
        "PERSIST_STATE": "1",
        "STATE_DIR": str(home / "state"),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(home / "s3"),
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        "DOCKER_HOST": f"unix://{home}/no-docker",
        "LAMBDA_EXECUTOR": "local",
        "LOG_LEVEL": "WARNING",
    }


async def _serve(home: Path, port: int) -> None:
    from hypercorn.asyncio import serve as serve_asgi
    from hypercorn.config import Config
    from ministack.app import _build_persistence_save_dict, app
    from ministack.core.persistence import save_all

    from localcloud.ministack import (
        auto_scaling,
        executions,
        function_packages,
        lambdas,
        recorded_calls,
        repairs,
        s3_tasks,
    )
    from localcloud.ministack.administration import Administration
    from localcloud.ministack.sagemaker import register, sagemaker_on
    from localcloud.ministack.web_pages import NoWebPages

    repairs.apply()
    if path := os.environ.get(recorded_calls.VARIABLE):
        recorded_calls.record_to(Path(path))
    function_packages.install()
    lambdas.install(home / "lambda", port)
    sagemaker = sagemaker_on(home / "sagemaker", port)
    register(sagemaker)
    auto_scaling.register(sagemaker)
    s3_tasks.register()
    executions.take_faults_of(sagemaker.faults)

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.keep_alive_timeout = 75
    config.graceful_timeout = 1
    config.loglevel = "WARNING"
    traffic = Traffic(NoWebPages(Administration(app, sagemaker)))
    saving = asyncio.create_task(save_regularly(traffic, stop, lambda: save_all(_build_persistence_save_dict())))
    await serve_asgi(traffic, config, shutdown_trigger=lambda: _shutdown(stop, saving, sagemaker))


class Traffic:
    """The application, and whether a request that may have changed something came since this was last asked."""

    def __init__(self, application: Any):
        self._application = application
        self._changed = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self._changed |= may_change(scope)
        await self._application(scope, receive, send)

    def changed(self) -> bool:
        changed, self._changed = self._changed, False
        return changed


READING = ("Describe", "Get", "List", "Receive", "PutLogEvents")
"""Beginnings of actions after which there is nothing to save; logs wait for the next change."""


def may_change(scope: Mapping[str, Any]) -> bool:
    if scope.get("method", "GET") in ("GET", "HEAD") or scope["path"].endswith("/invocations"):
        return False
    target = dict(scope["headers"]).get(b"x-amz-target", b"").decode()
    return not target.rpartition(".")[2].startswith(READING)


async def save_regularly(traffic: Traffic, stop: asyncio.Event, save: Callable[[], None]) -> None:
    """Save what has changed, now and then, until `stop`; when this returns, no save is under way.

    One that ends after MiniStack's own at the end would put an older state in its place: messages of the last moments
    would be lost.
    """
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), SAVE_SECONDS)
        if not stop.is_set() and traffic.changed():
            await asyncio.to_thread(save)


async def _shutdown(stop: asyncio.Event, saving: "asyncio.Task[None]", sagemaker: Any) -> None:
    """Wait for the signal, then end every process that the cloud started, so that no request waits for one."""
    from ministack.core import lambda_runtime

    from localcloud.ministack.executions import abandon_executions

    await stop.wait()
    signal.setitimer(signal.ITIMER_REAL, STOP_SECONDS)  # SIGALRM's default action ends the process
    abandon_executions()
    await asyncio.to_thread(sagemaker.close)
    await asyncio.to_thread(lambda_runtime.reset)
    await saving
