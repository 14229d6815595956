"""Keeps web pages away from the local cloud: everybody knows its credentials, and root's signature is not checked.

Programs name no Origin. A browser names the one of the page that asks, or says in Sec-Fetch-Site that a page does, or,
where a name was bound anew to this machine (DNS rebinding), asks for another host. Nobody's pages are let in, those
that lie in the local cloud's own buckets included; an address that the user types or pastes is
(`Sec-Fetch-Site: none`).
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any

OWN_HOST = re.compile(rb"(127\.0\.0\.1|localhost)(:\d+)?")

Send = Callable[[dict[str, Any]], Awaitable[None]]


class NoWebPages:
    """The application, without what pages ask, and without what tells a browser to let pages see the answers."""

    def __init__(self, application: Any):
        self._application = application

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        reason = None if scope["type"] == "lifespan" else refusal(dict(scope["headers"]))
        if reason is None:
            await self._application(scope, receive, _without_cors(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": reason})
        else:
            body = f"{reason}\n".encode()
            headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": body})


def refusal(headers: dict[bytes, bytes]) -> str | None:
    """Return why a request with these headers is refused, or None."""
    if not OWN_HOST.fullmatch(headers.get(b"host", b"")):
        return "The local cloud is 127.0.0.1 or localhost, and no other host."
    if b"origin" in headers or headers.get(b"sec-fetch-site", b"none") != b"none":
        return "The local cloud is not for web pages."
    return None


def _without_cors(send: Send) -> Send:
    async def send_without_cors(message: dict[str, Any]) -> None:
        kept = [header for header in message.get("headers", []) if not header[0].lower().startswith(b"access-control-")]
        await send({**message, "headers": kept} if "headers" in message else message)

    return send_without_cors
