"""What the page can do: start a run, stop one, drop a picture into the inbox. Each is what the command does too."""

from __future__ import annotations

import tempfile
from typing import IO, Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kelpie import execution, inbox, launch
from kelpie.errors import InvalidInput
from kelpie.stack import Stack
from kelpie.ui import form

MOST_BYTES = 64 << 20
"""Of one picture: what is larger, the inbox would refuse (LARGEST_OBJECT_BYTES of functions/classify_image)."""
BYTES_IN_MEMORY = 1 << 20
"""Of one picture, while it comes."""


class Actions:
    def __init__(self, stack: Stack):
        self._stack = stack

    async def check_settings(self, request: Request) -> Response:
        """Say what is wrong by field, and start nothing."""
        given = await _settings(request)
        return JSONResponse({"problems": form.problems(None, given["settings"])})

    async def start_run(self, request: Request) -> Response:
        """Start a run and say its address, or say what is wrong by field."""
        given = await _settings(request)
        return await run_in_threadpool(self._start_run, given["dataset"], given["settings"])

    def _start_run(self, dataset: str, settings: dict[str, str]) -> Response:
        if problems := form.problems(dataset, settings):
            return JSONResponse({"problems": problems})
        prepared = launch.prepare(dataset.strip(), form.assignments(settings))
        started = launch.start(self._stack, prepared, lambda _phase, _bytes: None)
        return JSONResponse({"address": f"/runs/{quote(started.arn.rpartition(':')[2], safe='')}"}, 201)

    def stop_run(self, request: Request) -> Response:
        execution.stop(self._stack, request.path_params["name"])
        return JSONResponse({}, 202)

    async def drop(self, request: Request) -> Response:
        """Put the request's body into the inbox under the name of the file, and say where its result will be."""
        name = request.query_params.get("name", "")
        if not name or "/" in name or "\\" in name or len(name.encode()) > 255:
            raise InvalidInput("say the file's name: ?name=photo.jpg")
        with tempfile.SpooledTemporaryFile(BYTES_IN_MEMORY) as content:
            await _receive(request, content)
            dropped = await run_in_threadpool(inbox.put_one, self._stack, inbox.new_batch(), name, content)
        return JSONResponse({"key": dropped.key, "result": dropped.result_key}, 201)


async def _receive(request: Request, content: IO[bytes]) -> None:
    """Write the body to a file, and no more of it than a picture may have."""
    async for block in request.stream():
        content.write(block)
        if content.tell() > MOST_BYTES:
            raise HTTPException(413, f"the file has more than {MOST_BYTES >> 20} MiB")


async def _settings(request: Request) -> dict[str, Any]:
    """Read {"dataset": text, "settings": {key: text}}. Raises InvalidInput for anything else."""
    try:
        given = await request.json()
    except ValueError as error:
        raise InvalidInput(f"expected a JSON object: {error}") from error
    well_formed = (
        isinstance(given, dict)
        and isinstance(given.get("dataset"), str)
        and isinstance(given.get("settings"), dict)
        and all(isinstance(text, str) for text in given["settings"].values())
    )
    if not well_formed:
        raise InvalidInput('expected {"dataset": text, "settings": {key: text}}')
    return given
