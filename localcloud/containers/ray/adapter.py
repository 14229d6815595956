"""SageMaker's side of the Ray Serve image: /ping and /invocations, answered from Ray's HTTP port.

As sagemaker_serve.py of AWS's image, on aiohttp, which Ray brings along: of a request the body, Content-Type, Accept
and X-Amzn-SageMaker-* headers go to Ray's route /, of the response status, body, Content-Type and X-Amzn-SageMaker-*
come back. /ping asks Ray's own health check, which is true once an application has a route. Other than in the image,
which nothing but SageMaker reaches, web pages that this machine's browser shows are refused.
"""

from __future__ import annotations

import os

import aiohttp
from aiohttp import web

OWN_HOSTS = ("127.0.0.1", "localhost")
FORWARDED = "x-amzn-sagemaker-"
PING_TIMEOUT_SECONDS = 5
DEFAULT_TIMEOUT_SECONDS = 300
TERMINATION_SECONDS = 1


def serve(host: str, port: int, backend: str) -> None:
    """Answer at host:port from the backend's base URL, until SIGTERM."""
    timeout_seconds = int(os.environ.get("RAYSERVE_BACKEND_TIMEOUT", DEFAULT_TIMEOUT_SECONDS))
    web.run_app(
        build(backend, timeout_seconds),
        host=host,
        port=port,
        access_log=None,
        print=None,
        shutdown_timeout=TERMINATION_SECONDS,
    )


def build(backend: str, timeout_seconds: float) -> web.Application:
    """Return the adapter to a backend."""
    session: aiohttp.ClientSession

    async def connected(_: web.Application):
        nonlocal session
        session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_seconds))
        async with session:
            yield

    async def ping(_: web.Request) -> web.Response:
        timeout = aiohttp.ClientTimeout(total=PING_TIMEOUT_SECONDS)
        try:
            async with session.get(f"{backend}/-/healthz", timeout=timeout) as response:
                return web.Response(status=200 if response.status == 200 else 503)
        except (TimeoutError, aiohttp.ClientError):
            return web.Response(status=503)

    async def invocations(request: web.Request) -> web.Response:
        headers = {
            **_sagemaker_headers(request.headers.items()),
            "Content-Type": request.headers.get("Content-Type", "application/json"),
            "Accept": request.headers.get("Accept", "application/json"),
        }
        body = await request.read()
        try:
            async with session.post(f"{backend}/", data=body, headers=headers) as response:
                answered = response.headers
                return web.Response(
                    status=response.status,
                    body=await response.read(),
                    headers={
                        **_sagemaker_headers(answered.items()),
                        "Content-Type": answered.get("Content-Type", headers["Accept"]),
                    },
                )
        except TimeoutError:
            return web.json_response({"error": "Request timeout"}, status=504)
        except aiohttp.ClientConnectorError:
            return web.json_response({"error": "Service unavailable"}, status=503)
        except aiohttp.ClientError as error:
            return web.json_response({"error": str(error)}, status=500)

    # 0: any size; SageMaker's runtime has its own limit
    application = web.Application(client_max_size=0, middlewares=[without_web_pages])
    application.cleanup_ctx.append(connected)
    application.router.add_get("/ping", ping)
    application.router.add_post("/invocations", invocations)
    return application


@web.middleware
async def without_web_pages(request: web.Request, handler) -> web.StreamResponse:
    """Only browsers send these headers, and a name that was bound anew to this machine is none of ours."""
    if {"Origin", "Sec-Fetch-Site"} & request.headers.keys() or request.url.host not in OWN_HOSTS:
        raise web.HTTPForbidden(text="An endpoint's server is not for web pages.")
    return await handler(request)


def _sagemaker_headers(headers) -> dict[str, str]:
    return {name: value for name, value in headers if name.lower().startswith(FORWARDED)}
