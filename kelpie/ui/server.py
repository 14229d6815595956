"""Serves the page on 127.0.0.1 until it is stopped."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from kelpie.errors import CloudUnavailable, InvalidInput, KelpieError
from kelpie.stack import AWS_ERRORS, Stack
from kelpie.ui.actions import Actions
from kelpie.ui.guard import Guard, Keys
from kelpie.ui.pages import Pages
from kelpie.ui.readings import Readings

HOST = "127.0.0.1"


def serve(stack: Stack, home: str | None, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve until Ctrl-C. `on_ready` gets the address to open, key included. port: 0 for any that is free.

    Raises CloudUnavailable if the port is in use.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            raise CloudUnavailable(f"port {port} is in use: choose another with `kelpie ui --port`") from error
        port = listener.getsockname()[1]
        keys = Keys()
        settings = uvicorn.Config(
            application(Readings(stack, home), port, keys), log_level="warning", server_header=False, lifespan="off"
        )
        on_ready(f"http://{HOST}:{port}/?key={keys.entry}")
        uvicorn.Server(settings).run(sockets=[listener])


def application(readings: Readings, port: int, keys: Keys) -> Guard:
    pages, actions = Pages(readings, keys.action), Actions(readings.stack)
    routes = [
        Route("/", pages.overview),
        Route("/parts", pages.overview_parts),
        Route("/start", pages.start),
        Route("/settings/check", actions.check_settings, methods=["POST"]),
        Route("/runs", actions.start_run, methods=["POST"]),
        Route("/runs/{name}", pages.run),
        Route("/runs/{name}/parts", pages.run_parts),
        Route("/runs/{name}/logs", pages.run_logs),
        Route("/runs/{name}/stop", actions.stop_run, methods=["POST"]),
        Route("/runs/{name}/files/{path:path}", pages.file),
        Route("/inbox", pages.inbox),
        Route("/inbox", actions.drop, methods=["POST"]),
        Route("/inbox/card", pages.inbox_card),
        Route("/inbox/image", pages.inbox_image),
        Mount("/static", StaticFiles(directory=Path(__file__).with_name("static"))),
    ]

    def answer(request: Request, message: str, status_code: int) -> Response:
        """Say what is wrong, as a page to a person and as JSON to the page's own script."""
        if request.headers.get("accept", "").startswith("application/json"):
            return JSONResponse({"message": message}, status_code)
        return pages.problem(request, message, status_code)

    def said(request: Request, error: Exception) -> Response:
        return answer(request, str(error), _status_code(error))

    def not_found(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return answer(request, error.detail, error.status_code)

    served = Starlette(
        routes=routes,
        exception_handlers={
            HTTPException: not_found,
            **dict.fromkeys((KelpieError, *AWS_ERRORS), said),
        },
    )
    return Guard(served, port, keys)


def _status_code(error: Exception) -> int:
    if isinstance(error, InvalidInput):
        return 400
    return 503 if isinstance(error, CloudUnavailable) else 502
