"""The server: HTTP requests to answers, with nothing between the socket and the engine that need not be there.

The event loop reads bodies and sends answers. Everything else, decoding first, is done by the workers, a thread each:
Pillow, numpy and the engines leave the interpreter free while they compute. A request that would wait longer than
LONGEST_WAIT_SECONDS is refused at once, with 503 and a reason, and so is every one while the server drains.
"""

from __future__ import annotations

import asyncio
import json
import queue
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import inference
import numpy as np
from decoding import preprocess

LONGEST_WAIT_SECONDS = 10.0  # of the 60 that SageMaker waits for an answer
MOST_TAKEN_BYTES = 256 << 20  # of bodies in memory
LONGEST_BODY_BYTES = 6_291_456  # SageMaker's own limit
LONGEST_READ_SECONDS = 20.0  # of a body: its adapter has it whole before it asks
DRAIN_SECONDS = 20.0  # of the 30 between SIGTERM and SIGKILL
FIRST_GUESS_SECONDS = 0.02  # of an image, until one has been measured
SMOOTHING = 0.1  # weight of the newest measurement
VARIANT_HEADER = "x-amzn-sagemaker-custom-attributes"
"""The one header of its own that SageMaker hands through to the caller of InvokeEndpoint."""


class ImageTooLarge(inference.BadRequest):
    """The body is longer than any that SageMaker hands on."""

    status = 413


class BodyTooSlow(inference.BadRequest):
    """The rest of the body did not come."""

    status = 408


@dataclass(frozen=True)
class Answer:
    """An HTTP response; its body is JSON."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Job:
    """One image on its way through a worker."""

    body: bytes
    accept: str | None
    answer: Future[Answer] = field(default_factory=Future)


class Service:
    """Answers images with a model, `workers` at a time; each takes up to `batch_size` that wait."""

    def __init__(self, model: inference.Model, workers: int, batch_size: int):
        self._model, self._workers, self._batch_size = model, workers, batch_size
        self._headers = {VARIANT_HEADER: f"variant={model.serving['variant']}"}
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        # Of requests that have no answer yet: all, their bodies, and those whose image is with the workers. The event
        # loop alone changes them.
        self._taken = self._taken_bytes = self._waiting = 0
        self._seconds_an_image = FIRST_GUESS_SECONDS
        self.draining = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    async def answer(
        self, method: str, path: str, headers: Mapping[str, str], read: Callable[[], Awaitable[bytes]]
    ) -> Answer:
        """Answer a request. headers: by lower-case names. read: gives the body."""
        if path == "/-/healthz":
            return _error(503, "ShuttingDown", "the server is about to end") if self.draining else Answer(200, b"{}")
        if path != "/":
            return _error(404, "NotFound", f"there is no {path}, POST images to /")
        if method != "POST":
            return _error(405, "MethodNotAllowed", f"{method} is not answered, POST an image", Allow="POST")
        length = int(headers.get("content-length", LONGEST_BODY_BYTES))  # sent in chunks, nobody knows
        refusal = self._refusal(length)
        if refusal:
            return refusal
        self._taken, self._taken_bytes = self._taken + 1, self._taken_bytes + length
        try:
            image = inference.input_fn(await self._read(read), headers.get("content-type"))
            return await self._computed(Job(image, headers.get("accept")))
        except BodyTooSlow as error:
            return _error(error.status, type(error).__name__, str(error), Connection="close")
        except inference.BadRequest as error:
            return _error(error.status, type(error).__name__, str(error))
        finally:
            self._taken, self._taken_bytes = self._taken - 1, self._taken_bytes - length

    def _refusal(self, length: int) -> Answer | None:
        if self.draining:
            return _error(503, "ShuttingDown", "the server is about to end, ask again")
        if length > LONGEST_BODY_BYTES:
            return _error(413, "ImageTooLarge", f"the body has {length} bytes, at most {LONGEST_BODY_BYTES} are read")
        wait = self._waiting * self._seconds_an_image / self._workers
        if wait > LONGEST_WAIT_SECONDS:
            reason = f"{self._waiting} images are waiting, which takes {wait:.1f} s: ask again later"
            return _error(503, "Overloaded", reason)
        if self._taken_bytes + length > MOST_TAKEN_BYTES:
            reason = f"{self._taken} requests may take {self._taken_bytes >> 20} MiB of memory: ask again later"
            return _error(503, "Overloaded", reason)
        return None

    async def _read(self, read: Callable[[], Awaitable[bytes]]) -> bytes:
        try:
            async with asyncio.timeout(LONGEST_READ_SECONDS):
                return await read()
        except TimeoutError as error:
            raise BodyTooSlow(f"the body did not come within {LONGEST_READ_SECONDS:g} s") from error

    async def _computed(self, job: Job) -> Answer:
        self._waiting += 1
        self._jobs.put(job)
        try:
            return await asyncio.wrap_future(job.answer)
        finally:
            self._waiting -= 1

    async def drain(self) -> None:
        """Refuse what comes from now on, and wait for what is being answered, up to DRAIN_SECONDS."""
        self.draining = True
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._taken and time.monotonic() < deadline:
            await asyncio.sleep(0.02)

    def close(self) -> None:
        """End the workers, once they have done what was given to them."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            share = -(-(1 + self._jobs.qsize()) // self._workers)  # of what waits: the others are not to idle
            jobs = [job]
            while len(jobs) < min(self._batch_size, share):
                try:
                    more = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    self._jobs.put(None)
                    break
                jobs.append(more)
            started = time.monotonic()
            images = self._answer_batch([job for job in jobs if job.answer.set_running_or_notify_cancel()])
            if images:
                seconds = (time.monotonic() - started) / images
                self._seconds_an_image += SMOOTHING * (seconds - self._seconds_an_image)

    def _answer_batch(self, jobs: list[Job]) -> int:
        """Answer all; return how many images the engine was given."""
        pixels: list[np.ndarray] = []
        decoded: list[Job] = []
        for job in jobs:
            try:
                pixels.append(preprocess(job.body, self._model.description["preprocessing"]))
                decoded.append(job)
            except inference.BadRequest as error:
                job.answer.set_result(_error(error.status, type(error).__name__, str(error)))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this request's and not the worker's end
                job.answer.set_exception(error)
        if not decoded:
            return 0
        try:
            rows = self._model.engine.logits(np.stack(pixels))
            for job, logits in zip(decoded, rows, strict=True):
                job.answer.set_result(self._answer_of(logits, job.accept))
        except Exception as error:  # noqa: BLE001 - likewise
            for job in decoded:
                if not job.answer.done():
                    job.answer.set_exception(error)
        return len(decoded)

    def _answer_of(self, logits: np.ndarray, accept: str | None) -> Answer:
        try:
            body, content_type = inference.output_fn(inference.interpret(logits, self._model), accept)
        except inference.BadRequest as error:
            return _error(error.status, type(error).__name__, str(error))
        return Answer(200, body, {**self._headers, "content-type": content_type})


class Application:
    """The service as an ASGI application: https://asgi.readthedocs.io/en/latest/specs/www.html"""

    def __init__(self, service: Service):
        self._service = service

    async def __call__(self, scope: Mapping[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            answer = await self._service.answer(scope["method"], scope["path"], headers, lambda: _body(receive))
        except ConnectionError:  # the client went away before its body was whole: there is nobody to answer
            return
        own = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers.items()]
        length = (b"content-length", str(len(answer.body)).encode())
        await send({"type": "http.response.start", "status": answer.status, "headers": [*own, length]})
        await send({"type": "http.response.body", "body": answer.body})


async def _body(receive: Callable[..., Any]) -> bytes:
    """Return the request's body, not copied if it comes in one piece. Raises ConnectionError, ImageTooLarge."""
    pieces, length = list[bytes](), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        pieces.append(message.get("body", b""))
        length += len(pieces[-1])
        if length > LONGEST_BODY_BYTES:
            raise ImageTooLarge(f"the body has more than the {LONGEST_BODY_BYTES} bytes that are read")
        if not message.get("more_body"):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _error(status: int, error: str, reason: str, **headers: str) -> Answer:
    body = json.dumps({"error": error, "reason": reason}).encode()
    return Answer(status, body, {"content-type": "application/json", **headers})
