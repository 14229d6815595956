"""The server without its sockets: answers, refusals, overload, batches and draining."""

import asyncio
import importlib
import json
import threading
from dataclasses import replace

import numpy as np
import pytest

MEBIBYTE = 1 << 20


@pytest.fixture
def server(inference):
    assert inference  # whose modules the server imports
    return importlib.import_module("server")


@pytest.fixture
def started(server, model):
    """Start a service around a model, or around an engine put into it; all are ended."""
    services = []

    def start(engine=None, workers=1, batch_size=1):
        services.append(server.Service(replace(model, engine=engine or model.engine), workers, batch_size))
        return services[-1]

    yield start
    for service in services:
        service.close()


class Held:
    """An engine that answers when it is told to, and remembers its batches."""

    def __init__(self):
        self.released, self.asked, self.batches = threading.Event(), threading.Event(), []

    def logits(self, batch):
        self.batches.append(len(batch))
        self.asked.set()
        assert self.released.wait(300)
        return np.zeros((len(batch), 6), dtype=np.float32)


def test_an_image_is_answered_with_its_labels_and_the_variant(started, artifact, model, server):
    golden = model.description["golden"][1]
    status, headers, answer = post(server, started(), (artifact / golden["file"]).read_bytes(), "image/png")
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert headers["x-amzn-sagemaker-custom-attributes"] == "variant=float32"
    assert answer["predictions"][0]["label"] == golden["label"]
    assert answer["model"]["weights_sha256"] == model.description["weights_sha256"]


@pytest.mark.parametrize(
    ("request_", "status", "error"),
    [
        ({"body": b"no image"}, 400, "UnreadableImage"),
        ({"body": b"\xff\xd8\xff" + b"0" * 1000}, 400, "UnreadableImage"),
        ({"body": b""}, 400, "UnreadableImage"),
        ({"content_type": "text/plain"}, 415, "UnsupportedMediaType"),
        ({"body": b"GIF89a..."}, 415, "UnsupportedMediaType"),
        ({"accept": "text/csv"}, 406, "NotAcceptable"),
        ({"path": "/other"}, 404, "NotFound"),
        ({"method": "GET"}, 405, "MethodNotAllowed"),
        ({"length": 7 * MEBIBYTE}, 413, "ImageTooLarge"),
    ],
)
def test_a_bad_request_gets_a_reason_and_the_next_one_its_answer(started, server, tiny, request_, status, error):
    service, image = started(), tiny.encode(tiny.picture())
    answered, headers, answer = post(server, service, **({"body": image, "content_type": "image/png"} | request_))
    assert answered == status
    assert headers["content-type"] == "application/json"
    assert answer["error"] == error
    assert answer["reason"]
    assert post(server, service, image, "image/png")[0] == 200


def test_an_engine_that_fails_fails_its_request_alone(started, server, tiny):
    class Failing:
        def logits(self, _):
            raise MemoryError("no room")

    service, image = started(Failing()), tiny.encode(tiny.picture())
    for _ in range(3):
        with pytest.raises(MemoryError, match="no room"):
            post(server, service, image, "image/png")


def test_what_would_wait_too_long_is_refused_at_once_with_a_reason(started, server, tiny, monkeypatch):
    monkeypatch.setattr(server, "LONGEST_WAIT_SECONDS", 2.5 * server.FIRST_GUESS_SECONDS)
    engine, image = Held(), tiny.encode(tiny.picture())
    service = started(engine)

    async def ask():
        waiting = [asyncio.create_task(request(server, service, image, "image/png")) for _ in range(3)]
        await asyncio.sleep(0)
        refused = await request(server, service, image, "image/png")
        engine.released.set()
        return refused, await asyncio.gather(*waiting)

    refused, answered = asyncio.run(ask())
    assert (refused[0], refused[2]["error"]) == (503, "Overloaded")
    assert "3 images are waiting" in refused[2]["reason"]
    assert [status for status, _, _ in answered] == [200] * 3


def test_bodies_never_take_more_memory_than_they_may(started, server, tiny, monkeypatch):
    image = tiny.encode(tiny.picture())
    monkeypatch.setattr(server, "MOST_TAKEN_BYTES", len(image) - 1)
    status, _, answer = post(server, started(), image, "image/png")
    assert (status, answer["error"]) == (503, "Overloaded")
    assert "MiB of memory" in answer["reason"]


def test_a_body_sent_in_chunks_is_read_no_further_than_any_other(started, server, monkeypatch):
    monkeypatch.setattr(server, "LONGEST_BODY_BYTES", 1000)
    service, pieces = started(), [b"\xff\xd8\xff" + b"0" * 500] * 10
    status, _, answer = asyncio.run(exchange(server, service, {"content-type": "image/jpeg"}, pieces))
    assert (status, answer["error"]) == (413, "ImageTooLarge")
    assert len(pieces) == 8
    assert service._taken == service._taken_bytes == 0


def test_bodies_that_never_come_keep_nobody_from_an_answer_and_are_given_up(started, server, tiny, monkeypatch):
    monkeypatch.setattr(server, "LONGEST_WAIT_SECONDS", 2.5 * server.FIRST_GUESS_SECONDS)
    monkeypatch.setattr(server, "LONGEST_READ_SECONDS", 0.2)
    service, image = started(), tiny.encode(tiny.picture())

    async def ask():
        headers = {"content-type": "image/png", "content-length": "1000"}
        slow = [asyncio.create_task(exchange(server, service, headers, [image[:10], None])) for _ in range(20)]
        await asyncio.sleep(0)
        answered = await request(server, service, image, "image/png")
        return answered, await asyncio.gather(*slow)

    answered, slow = asyncio.run(ask())
    assert answered[0] == 200
    assert {(status, headers["connection"], answer["error"]) for status, headers, answer in slow} == {
        (408, "close", "BodyTooSlow")
    }


def test_images_that_wait_go_through_the_engine_together_and_a_broken_one_spoils_no_other(started, server, tiny):
    engine, image = Held(), tiny.encode(tiny.picture())
    service = started(engine, batch_size=4)

    async def ask():
        first = asyncio.create_task(request(server, service, image, "image/png"))
        await asyncio.to_thread(engine.asked.wait, 300)
        bodies = [image, b"\x89PNG\r\n\x1a\n broken", image]
        others = [asyncio.create_task(request(server, service, body, "image/png")) for body in bodies]
        await asyncio.sleep(0)
        engine.released.set()
        return [(await task)[0] for task in (first, *others)]

    assert asyncio.run(ask()) == [200, 200, 400, 200]
    assert engine.batches == [1, 2]


def test_of_images_that_wait_each_worker_takes_its_share(started, server, tiny):
    engine, image = Held(), tiny.encode(tiny.picture())
    service = started(engine, workers=2, batch_size=4)

    async def ask():
        first = [asyncio.create_task(request(server, service, image, "image/png")) for _ in range(2)]
        while len(engine.batches) < 2:
            await asyncio.sleep(0.001)
        others = [asyncio.create_task(request(server, service, image, "image/png")) for _ in range(4)]
        await asyncio.sleep(0)
        engine.released.set()
        return [(await task)[0] for task in (*first, *others)]

    assert asyncio.run(ask()) == [200] * 6
    assert (max(engine.batches), sum(engine.batches)) == (2, 6)


def test_a_server_that_drains_refuses_what_comes_and_answers_what_is_there(started, server, tiny):
    engine, image = Held(), tiny.encode(tiny.picture())
    service = started(engine)

    async def ask():
        there = asyncio.create_task(request(server, service, image, "image/png"))
        await asyncio.to_thread(engine.asked.wait, 300)
        assert (await request(server, service, path="/-/healthz", method="GET"))[0] == 200
        draining = asyncio.create_task(service.drain())
        await asyncio.sleep(0)
        refused = await request(server, service, image, "image/png")
        health = await request(server, service, path="/-/healthz", method="GET")
        assert not draining.done()
        engine.released.set()
        answered = await there
        await draining
        return refused, health, answered

    refused, health, answered = asyncio.run(ask())
    assert (refused[0], refused[2]["error"]) == (503, "ShuttingDown")
    assert health[0] == 503
    assert answered[0] == 200


def test_a_client_that_goes_away_before_its_body_is_whole_is_forgotten(started, server):
    sent = []

    async def ask():
        async def receive():
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        await server.Application(service)(scope({"content-length": "10"}), receive, send)

    service = started()
    asyncio.run(ask())
    assert not sent
    assert service._taken == service._taken_bytes == 0


def post(server, service, *given, **named):
    return asyncio.run(request(server, service, *given, **named))


async def request(
    server,
    service,
    body=b"",
    content_type="image/jpeg",
    accept="application/json",
    path="/",
    method="POST",
    length=None,
):
    """Send a request, its body in two pieces; return status, headers and JSON."""
    headers = {"content-type": content_type, "accept": accept, "content-length": str(length or len(body))}
    return await exchange(server, service, headers, [body[:10], body[10:]], path, method)


async def exchange(server, service, headers, pieces, path="/", method="POST"):
    """Send pieces of a body through the ASGI application; after None nothing more comes."""
    sent = []

    async def receive():
        piece = pieces.pop(0)
        if piece is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    async def send(message):
        sent.append(message)

    await server.Application(service)(scope(headers, path, method), receive, send)
    names = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], names, json.loads(sent[1]["body"])


def scope(headers, path="/", method="POST"):
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "method": method, "path": path, "query_string": b"", "headers": encoded}
