"""Keeps other hosts, pages and users from driving the page: who may ask, and what a browser may do with the answer.

A request needs the host and port that the server has (against DNS rebinding), the key of the address that the command
printed (against other users of this machine), and, if it changes anything, the page's own origin and a second key,
which only the page's text holds (against forged requests, from other ports of this host too: a cookie knows no port).
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ACTION_HEADER = "x-kelpie-action"
READING = ("GET", "HEAD")
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
STRANGERS_POLICY = (
    "sandbox allow-scripts allow-popups allow-popups-to-escape-sandbox allow-downloads; default-src 'none'; "
    "script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
)
"""For what comes from the bucket: it may draw itself, and has no origin with which it could ask for anything."""


@dataclass(frozen=True)
class Keys:
    """Both are made when the server starts, and die with it."""

    entry: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    action: str = field(default_factory=lambda: secrets.token_urlsafe(32))


class Guard:
    """Wraps the application: lets through what may ask, and puts the headers of safety on every answer."""

    def __init__(self, application: ASGIApp, port: int, keys: Keys):
        self._application = application
        self._keys = keys
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._cookie = f"kelpie-{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} connections are not served")

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                add_headers_of_safety(MutableHeaders(scope=message))
            await send(message)

        answer = self._refuse(Request(scope)) or self._let_in(Request(scope))
        await (answer or self._application)(scope, receive, send_safely)

    def _refuse(self, request: Request) -> Response | None:
        """Return why a request is refused, or None."""
        headers = request.headers
        if headers.get("host") not in self._hosts:
            return PlainTextResponse(f"This server is {' or '.join(sorted(self._hosts))}, and no other.\n", 421)
        if not self._is_from_here(request.method, headers):
            return PlainTextResponse("Other pages may not ask this server.\n", 403)
        if request.method not in READING and not _same(headers.get(ACTION_HEADER), self._keys.action):
            return PlainTextResponse("The page is out of date: load it again.\n", 403)
        return None

    def _is_from_here(self, method: str, headers: Headers) -> bool:
        """Whether a browser says that a page of this server asks, or the person in front of it."""
        origins = {f"http://{host}" for host in self._hosts}
        if method not in READING:
            return headers.get("origin") in origins and headers.get("sec-fetch-site", "same-origin") == "same-origin"
        if "origin" in headers and headers["origin"] not in origins:
            return False
        if headers.get("sec-fetch-site", "none") in ("same-origin", "none"):
            return True
        return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"

    def _let_in(self, request: Request) -> Response | None:
        """Take the key of the printed address into a cookie; afterwards ask for the cookie."""
        given = request.query_params.get("key")
        if request.url.path == "/" and given is not None and _same(given, self._keys.entry):
            answer = RedirectResponse("/", 303)
            answer.set_cookie(self._cookie, self._keys.entry, httponly=True, samesite="lax")
            return answer
        if _same(request.cookies.get(self._cookie), self._keys.entry):
            return None
        return PlainTextResponse("Open the address that `kelpie ui` has printed: it holds the key.\n", 403)


def add_headers_of_safety(headers: MutableHeaders) -> None:
    headers.setdefault("content-security-policy", PAGE_POLICY)
    headers.setdefault("cache-control", "no-store")
    headers["x-content-type-options"] = "nosniff"
    headers["referrer-policy"] = "no-referrer"
    headers["cross-origin-resource-policy"] = "same-origin"
    headers["cross-origin-opener-policy"] = "same-origin"


def _same(given: str | None, key: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode(), key.encode())
