"""Serve the artifact on Ray Serve: POST / takes an image and answers with its labels.

AWS's Ray image runs it with `serve run config.yaml`, the artifact's root and its code/ on PYTHONPATH; so can you. Its
adapter sends every request to RAYSERVE_BACKEND_URL, Ray's own HTTP port by default. Where that names another port of
this machine, the replica listens there itself, so that no request passes Ray's proxy and its actors
(docs/decisions says what that saves), and answers the adapter's health check, /-/healthz, from the moment on at which
the golden images have been answered.

Ray's own health check is true as soon as an application has a route, whether or not a replica answers. So without a
backend of our own `build` has the artifact answer its golden images before there is an application. Either way a model
that is broken never becomes healthy, and SageMaker never sends traffic to it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ray import serve
from starlette.requests import Request
from starlette.responses import Response

ARTIFACT = Path(__file__).resolve().parent
CORES_OF_A_REPLICA = 8
"""Up to so many workers share one interpreter without waiting for each other: of an image's time it holds a tenth."""


@dataclass(frozen=True)
class Settings:
    """How the cores are used, and by whom: SERVING_REPLICAS, processes that answer; SERVING_THREADS, of the engine for
    one answer, where not those that OptimizeModel measured; MODEL_PACKAGE_ARN, whose answers these are, if CreateModel
    said so; RAYSERVE_BACKEND_URL, where the image's adapter looks for the backend."""

    replicas: int
    cores: int
    threads: int | None
    package_arn: str | None
    backend: tuple[str, int] | None

    @classmethod
    def read(cls, environment: Mapping[str, str], cores: int) -> Settings:
        """Raises ValueError, naming the variable."""
        replicas = _at_least_one(environment, "SERVING_REPLICAS") or -(-cores // CORES_OF_A_REPLICA)
        url = urlsplit(environment.get("RAYSERVE_BACKEND_URL", ""))
        backend = (url.hostname, url.port) if url.hostname and url.port else None
        threads = _at_least_one(environment, "SERVING_THREADS")
        package_arn = environment.get("MODEL_PACKAGE_ARN") or None
        return cls(replicas, max(1, cores // replicas), threads, package_arn, backend)


def build(_arguments: dict[str, str]) -> serve.Application:
    """Return the application. Without a backend of its own, raises artifacts.ArtifactError for a broken artifact."""
    from engines import available_cores

    settings = Settings.read(os.environ, available_cores())
    if settings.backend is None:
        import inference

        inference.verified_model(ARTIFACT, settings.package_arn, None)
    classifier = Classifier.options(num_replicas=settings.replicas)  # type: ignore[attr-defined]
    return classifier.bind(settings)


@serve.deployment(ray_actor_options={"num_cpus": 0})  # Ray's count of CPUs is not to hold a replica back
class Classifier:
    """A replica: one model, its workers, and a listener of its own where there is a backend."""

    def __init__(self, settings: Settings):
        import inference
        from engines import Cores
        from server import Service

        self._listener: Listener | None = None  # Ray calls __del__ even where what follows fails
        measured = inference.serving_settings(ARTIFACT)
        threads = settings.threads or measured["threads"]
        workers = max(1, settings.cores // threads)
        model = inference.verified_model(ARTIFACT, settings.package_arn, Cores(workers, threads))
        print(f"serving {model.serving['variant']} with {workers} workers of {threads} threads", flush=True)
        self.service = Service(model, workers, measured["batch_size"])
        if settings.backend:
            self._listener = Listener(self.service, settings.backend)

    async def __call__(self, request: Request) -> Response:
        answer = await self.service.answer(request.method, request.url.path, request.headers, request.body)
        return Response(answer.body, answer.status, answer.headers)

    async def __del__(self) -> None:
        """Ray calls it once, when it takes the replica out of service."""
        if self._listener:
            await asyncio.wrap_future(self._listener.stop())


class Listener:
    """uvicorn in a thread of its own, on a port that all replicas share."""

    def __init__(self, service: Any, address: tuple[str, int]):
        import uvicorn
        import uvloop
        from server import Application

        self._service = service
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind(address)
        config = uvicorn.Config(
            Application(service),
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,  # longer than the adapter's, so that it never sends into a connection that closes
            backlog=2048,
        )
        self._server = uvicorn.Server(config)
        self._loop = uvloop.new_event_loop()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        self._loop.run_until_complete(self._server.serve([self._socket]))

    def stop(self) -> Any:
        """Drain: no new request is taken, those that are there are answered. Return a future of the end."""
        return asyncio.run_coroutine_threadsafe(self._drain(), self._loop)

    async def _drain(self) -> None:
        await self._service.drain()
        self._server.should_exit = True


def _at_least_one(environment: Mapping[str, str], name: str) -> int | None:
    value = environment.get(name)
    if value is None:
        return None
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"{name} is {value!r}, expected a whole number of at least 1")
    return int(value)
