"""Asks an ASGI application as a server would, without a socket."""

import asyncio
import json
from dataclasses import dataclass, field
from urllib.parse import unquote

import pytest


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes

    @property
    def text(self):
        return self.body.decode()

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Client:
    """Sends the headers of `always` with each request; None takes one away."""

    application: object
    always: dict = field(default_factory=dict)

    def get(self, address, headers=None):
        return self.request("GET", address, headers)

    def post(self, address, headers=None, body=b""):
        return self.request("POST", address, headers, body)

    def request(self, method, address, headers=None, body=b""):
        path, _, query = address.partition("?")
        sent = {**self.always, **(headers or {})}
        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), _bytes(value)) for name, value in sent.items() if value is not None],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 1),
        }
        messages = []

        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message):
            messages.append(message)

        asyncio.run(self.application(scope, receive, send))
        headers = {name.decode(): value.decode() for name, value in messages[0]["headers"]}
        return Answer(messages[0]["status"], headers, b"".join(message.get("body", b"") for message in messages[1:]))


def _bytes(value):
    return value if isinstance(value, bytes) else value.encode()


@pytest.fixture(scope="session")
def client_of():
    return Client
