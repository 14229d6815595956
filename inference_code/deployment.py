"""Serve the artifact on Ray Serve: POST / takes an image and answers with its labels.

AWS's Ray image runs it with `serve run config.yaml`, the artifact's root and its code/ on PYTHONPATH; so can you.

Ray reports itself healthy as soon as an application has a route, whether or not a replica answers. So `build` loads the
artifact and answers its golden images before there is an application: a model that is broken never becomes healthy, and
SageMaker never sends traffic to it.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from ray import serve
from starlette.requests import Request
from starlette.responses import Response

ARTIFACT = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Settings:
    """SERVING_REPLICAS: processes that answer. SERVING_THREADS: of torch, in each of them. MODEL_PACKAGE_ARN: whose
    answers these are, if CreateModel said so."""

    replicas: int
    threads: int
    package_arn: str | None

    @classmethod
    def read(cls, environment: Mapping[str, str], cores: int) -> Settings:
        """One replica that uses all cores by default. Raises ValueError, naming the variable."""
        replicas = _at_least_one(environment, "SERVING_REPLICAS", 1)
        threads = _at_least_one(environment, "SERVING_THREADS", max(1, cores // replicas))
        return cls(replicas, threads, environment.get("MODEL_PACKAGE_ARN") or None)


def build(_arguments: dict[str, str]) -> serve.Application:
    """Return the application, if the artifact is whole and gives its golden answers. Raises inference.ArtifactError."""
    import inference

    settings = Settings.read(os.environ, _cores())
    inference.verify_golden_images(inference.model_fn(ARTIFACT), ARTIFACT)
    classifier = Classifier.options(num_replicas=settings.replicas)  # type: ignore[attr-defined]
    return classifier.bind(settings.threads, settings.package_arn)


@serve.deployment(ray_actor_options={"num_cpus": 0})  # Ray's count of CPUs is not to hold a replica back
class Classifier:
    """A replica. It answers in one thread of its own, so that its event loop stays free for health checks."""

    def __init__(self, threads: int, package_arn: str | None):
        import inference
        import torch

        torch.set_num_threads(threads)
        self._inference = inference
        self._model = inference.model_fn(ARTIFACT, package_arn)
        inference.verify_golden_images(self._model, ARTIFACT)  # which warms it up, too
        self._worker = ThreadPoolExecutor(max_workers=1)

    async def __call__(self, request: Request) -> Response:
        if request.url.path != "/":
            return _error(404, "NotFound", f"there is no {request.url.path}, POST images to /")
        if request.method != "POST":
            return _error(405, "MethodNotAllowed", f"{request.method} is not answered, POST an image", Allow="POST")
        body, headers = await request.body(), request.headers
        return await asyncio.get_running_loop().run_in_executor(
            self._worker, self._answer, body, headers.get("content-type"), headers.get("accept")
        )

    def _answer(self, body: bytes, content_type: str | None, accept: str | None) -> Response:
        try:
            prediction = self._inference.predict_fn(self._inference.input_fn(body, content_type), self._model)
            answer, answer_type = self._inference.output_fn(prediction, accept)
        except self._inference.BadRequest as error:
            return _error(error.status, type(error).__name__, str(error))
        return Response(answer, media_type=answer_type)


def _error(status: int, error: str, reason: str, **headers: str) -> Response:
    answer = json.dumps({"error": error, "reason": reason})
    return Response(answer, status_code=status, headers=headers, media_type="application/json")


def _at_least_one(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(name, str(default))
    if not value.isdecimal() or int(value) < 1:
        raise ValueError(f"{name} is {value!r}, expected a whole number of at least 1")
    return int(value)


def _cores() -> int:
    """How many cores this process may use: containers are often given fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
