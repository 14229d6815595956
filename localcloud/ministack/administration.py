"""What the local cloud answers besides AWS: the faults that it is to make, as JSON at /_localcloud/faults.

GET lists them, POST adds one (`localcloud.sagemaker.faults` says what there are), DELETE removes all. No credentials
are asked for: whoever reaches the port may do it, as with MiniStack's own paths.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from localcloud.cloud import FAULTS_PATH
from localcloud.sagemaker.errors import ServiceError
from localcloud.sagemaker.service import SageMaker

LOST_REPLY_HEADER = "x-localcloud-lost-reply"
"""A response with this header does not arrive: the connection ends after the headers."""

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Administration:
    """The application, with the path of the faults before it."""

    def __init__(self, application: Any, sagemaker: SageMaker):
        self._application = application
        self._sagemaker = sagemaker

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
        elif scope["path"] != FAULTS_PATH:
            await self._application(scope, receive, _losing(send))
        else:
            status, document = self._answer(scope, await _body(receive))
            body = json.dumps(document).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    def _answer(self, scope: Any, body: bytes) -> tuple[int, Any]:
        try:
            match scope["method"]:
                case "GET":
                    return 200, self._sagemaker.faults.list()
                case "POST":
                    return 200, self._sagemaker.inject(json.loads(body))
                case "DELETE":
                    self._sagemaker.faults.clear()
                    return 200, []
        except ValueError as error:
            return 400, {"message": f"the request is not JSON: {error}"}
        except ServiceError as error:
            return 400, {"message": error.message}
        return 405, {"message": "GET, POST or DELETE"}


def _losing(send: Send) -> Send:
    """Send nothing after the headers of a response that is lost: the server then closes the connection."""
    lost = False

    async def send_unless_lost(message: dict[str, Any]) -> None:
        nonlocal lost
        if message["type"] == "http.response.start":
            lost = LOST_REPLY_HEADER.encode() in dict(message["headers"])
        elif lost:
            return
        await send(message)

    return send_unless_lost


async def _body(receive: Callable[[], Awaitable[dict[str, Any]]]) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body
