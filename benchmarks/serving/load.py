"""Ask a server for labels of photographs, by HTTP, and watch what its processes use meanwhile.

Run by servers.py, as a process of its own, so that asking costs nobody else. The server's processes are those that have
the same parent as this one, and all below them. Argument: a JSON object; answer: another.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

SAMPLE_SECONDS = 2.0
WARM_UP_SECONDS = 2.0
PARTS = {"entrypoint.py": "adapter", "ray::ServeReplica": "server", "uvicorn": "server", "spawn_main": "server"}
"""Which part of a server a process is, by a word of its command line; "ray" is what has none of them."""


class Connection:
    """One client's connection, kept open."""

    def __init__(self, port: int):
        self._port, self._streams = port, None

    async def ask(self, request: bytes) -> str:
        """Return the status of the answer, or what came instead of one."""
        try:
            if self._streams is None or self._streams[0].at_eof():  # a server closes what has long been idle
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            return head.split(None, 2)[1].decode()
        except (OSError, EOFError, ValueError) as error:
            self._streams = None
            return repr(error)


@dataclass
class Asked:
    """What came of it: seconds of each answer, and what came instead of the others."""

    seconds: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    async def ask(self, connection: Connection, request: bytes, since: float) -> None:
        came = await connection.ask(request)
        if came == "200":
            self.seconds.append(time.perf_counter() - since)
        else:
            self.failures[came] += 1


async def by_clients(port: int, requests: list[bytes], clients: int, seconds: float) -> Asked:
    """Have so many clients ask without a pause."""
    asked, deadline = Asked(), time.perf_counter() + seconds

    async def client(number: int) -> None:
        connection = Connection(port)
        while (now := time.perf_counter()) < deadline:
            await asked.ask(connection, requests[number % len(requests)], now)
            number += clients

    await asyncio.gather(*map(client, range(clients)))
    return asked


async def by_rate(port: int, requests: list[bytes], rate: float, evenly: bool, seconds: float) -> Asked:
    """Ask so many times a second, evenly or at random moments (Poisson), whether or not there are answers yet."""
    asked, free, chance = Asked(), list[Connection](), random.Random(0)
    begun, due, waiting, number = time.perf_counter(), 0.0, set[asyncio.Task[None]](), 0

    async def one(request: bytes, since: float) -> None:
        connection = free.pop() if free else Connection(port)
        await asked.ask(connection, request, since)
        free.append(connection)

    while (due := due + (1 / rate if evenly else chance.expovariate(rate))) < seconds:
        await asyncio.sleep(max(0.0, begun + due - time.perf_counter()))
        task = asyncio.create_task(one(requests[number % len(requests)], begun + due))
        waiting.add(task)
        task.add_done_callback(waiting.discard)
        number += 1
    await asyncio.gather(*waiting)
    return asked


def processes() -> Iterator[tuple[str, psutil.Process]]:
    """Yield the server's processes, each with the part that it is."""
    for process in psutil.Process(os.getppid()).children(recursive=True):
        if process.pid == os.getpid():
            continue
        try:
            words = " ".join(process.cmdline())
        except psutil.Error:
            continue
        yield next((part for word, part in PARTS.items() if word in words), "ray"), process


def backend_port() -> int:
    """Return the port at which the replica itself listens: the one that the adapter is told of."""
    urls = (process.environ().get("RAYSERVE_BACKEND_URL") for part, process in processes() if part == "ray")
    port = urlsplit(next(filter(None, urls))).port
    assert port is not None
    return port


def core_seconds() -> dict[str, float]:
    """Return the processor time by part, that of processes which have ended included."""
    spent: dict[str, float] = {}
    for part, process in processes():
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        spent[part] = spent.get(part, 0.0) + sum(times[:4])  # user, system, and both of children that were waited for
    return spent


def memory_mb() -> dict[str, float]:
    """Return the resident memory of the server's processes by part; what they share counts for each."""
    resident: dict[str, float] = {}
    for part, process in processes():
        try:
            rss = process.memory_info().rss
        except psutil.Error:
            continue
        resident[part] = resident.get(part, 0.0) + rss / 2**20
    return resident


async def watch(samples: list[dict[str, float]]) -> None:
    while True:
        samples.append(memory_mb())
        await asyncio.sleep(SAMPLE_SECONDS)


async def measure(given: dict[str, Any]) -> dict[str, Any]:
    """Ask as `given` says: port, images (files), seconds, clients or rate and evenly, and whether past the adapter."""
    path, port = ("/", backend_port()) if given.get("past_adapter") else ("/invocations", given["port"])
    requests = [request(path, Path(image).read_bytes()) for image in given["images"]]
    await by_clients(port, requests, given.get("clients", 1), WARM_UP_SECONDS)
    samples: list[dict[str, float]] = []
    watching = asyncio.create_task(watch(samples))
    before, begun = core_seconds(), time.perf_counter()
    if "rate" in given:
        asked = await by_rate(port, requests, given["rate"], given["evenly"], given["seconds"])
    else:
        asked = await by_clients(port, requests, given["clients"], given["seconds"])
    elapsed, after = time.perf_counter() - begun, core_seconds()
    watching.cancel()
    answered = len(asked.seconds)
    core_ms = {part: 1000 * (spent - before.get(part, 0.0)) / max(answered, 1) for part, spent in after.items()}
    return {
        "answered": answered,
        "failed": asked.failures.total(),
        "failures": asked.failures,
        "images_per_second": answered / elapsed,
        **{f"p{share}_ms": percentile(asked.seconds, share) for share in (50, 95, 99)},
        "core_ms": sum(core_ms.values()),
        "core_ms_by_part": core_ms,
        "memory_mb": samples,
    }


def request(path: str, image: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nAccept: application/json\r\n"
    return f"{head}Content-Length: {len(image)}\r\n\r\n".encode() + image


def percentile(seconds: list[float], share: int) -> float:
    """Return the time within which that share of the answers came, in milliseconds; NaN without any."""
    if len(seconds) < 2:
        return math.nan
    return 1000 * statistics.quantiles(seconds, n=100, method="inclusive")[share - 1]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(json.loads(sys.argv[1])))))
