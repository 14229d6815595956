"""`kelpie bench-endpoint`: how many images a second an endpoint answers, how long each takes, and what one costs.

Clients ask without a pause, more of them at each level. The knee is the level after which more clients only wait
longer: there the endpoint is full, and its throughput is what its price is divided by.
"""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import botocore.exceptions
from rich.table import Table

from kelpie.errors import CloudUnavailable, InvalidInput, RunFailed
from kelpie.stack import Stack

PRICES = Path(__file__).parents[1] / "functions" / "plan_run" / "prices.json"
CONTENT_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}
WORTH_IT = 1.1  # how much more must be answered at twice the clients
BAR = 30


@dataclass(frozen=True)
class Level:
    """What came of so many clients at once."""

    clients: int
    answered: int
    failed: int
    first_error: str | None
    """Why the first of the failed ones did."""
    images_per_second: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None


def read_images(files: Sequence[str]) -> list[tuple[bytes, str]]:
    """Return the images' contents and types. Raises InvalidInput."""
    images = []
    for file in map(Path, files):
        if file.suffix.lower() not in CONTENT_TYPES or not file.is_file():
            raise InvalidInput(f"{file} is no JPEG or PNG file: give images as the endpoint takes them")
        images.append((file.read_bytes(), CONTENT_TYPES[file.suffix.lower()]))
    return images


def measure(ask: Callable[[int], None], clients: int, seconds: float) -> Level:
    """Have so many clients ask for so long, each once at least.

    ask(number): ask once; an error of botocore counts as failed.
    """
    taken: list[float] = []
    failures: list[Exception] = []
    begun = time.perf_counter()
    deadline = begun + seconds

    def work(number: int) -> None:
        while True:
            started = time.perf_counter()
            try:
                ask(number)
            except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
                failures.append(error)
            else:
                taken.append(time.perf_counter() - started)
            if time.perf_counter() >= deadline:
                return
            number += clients

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - begun
    first_error = str(failures[0]) if failures else None
    rate = round(len(taken) / elapsed, 2)
    return Level(clients, len(taken), len(failures), first_error, rate, *percentiles(taken))


def percentiles(seconds: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """Return p50, p95 and p99 in milliseconds; None without anything to count."""
    if not seconds:
        return None, None, None
    if len(seconds) == 1:
        return (round(1000 * seconds[0], 2),) * 3
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return round(1000 * cuts[49], 2), round(1000 * cuts[94], 2), round(1000 * cuts[98], 2)


def knee(levels: Sequence[Level]) -> Level:
    """Return the last level that was worth its clients."""
    best = levels[0]
    for level in levels[1:]:
        if level.images_per_second > WORTH_IT * best.images_per_second:
            best = level
    return best


def run(
    stack: Stack, endpoint: str, images: Sequence[tuple[bytes, str]], clients: Sequence[int], seconds: float
) -> dict[str, Any]:
    """Measure an endpoint level by level; return the document that `--json` prints.

    Raises CloudUnavailable if there is no such endpoint, RunFailed if it answers nothing.
    """
    instance_type, count = _instances(stack, endpoint)
    runtime = stack.client("sagemaker-runtime")

    def ask(number: int) -> None:
        body, content_type = images[number % len(images)]
        runtime.invoke_endpoint(EndpointName=endpoint, ContentType=content_type, Body=body)["Body"].read()

    warmed = measure(ask, 1, min(1.0, seconds))  # connections are made, caches filled
    if not warmed.answered:
        raise RunFailed(f"the endpoint {endpoint} answers nothing: {warmed.first_error}")
    levels = [measure(ask, number, seconds) for number in clients]
    full = knee(levels)
    prices = json.loads(PRICES.read_text(encoding="utf-8"))
    hourly = prices["hosting"].get(instance_type)
    known = hourly is not None and full.images_per_second > 0
    return {
        "endpoint": endpoint,
        "instance_type": instance_type,
        "instance_count": count,
        "levels": [asdict(level) for level in levels],
        "knee_clients": full.clients,
        "images_per_second": full.images_per_second,
        "usd_per_million_images": round(hourly * count / 3600 / full.images_per_second * 1e6, 2) if known else None,
        "prices_as_of": prices["as_of"],
        "prices_region": prices["region"],
    }


def chart(document: dict[str, Any]) -> Table:
    """Return the levels as rows with bars, the knee marked."""
    table = Table("Clients", "Images/s", "", "p50 ms", "p95 ms", "p99 ms", "Failed", box=None, pad_edge=False)
    most = max(level["images_per_second"] for level in document["levels"]) or 1
    for level in document["levels"]:
        bar = "█" * max(1, round(BAR * level["images_per_second"] / most))
        mark = " ← knee" if level["clients"] == document["knee_clients"] else ""
        times = [f"{level[name]:.1f}" if level[name] is not None else "-" for name in ("p50_ms", "p95_ms", "p99_ms")]
        failed = f"{level['failed']}: {level['first_error']}" if level["failed"] else "0"
        table.add_row(str(level["clients"]), f"{level['images_per_second']:.1f}", bar + mark, *times, failed)
    return table


def sentence(document: dict[str, Any]) -> str:
    """Return what the endpoint gives and what an image costs."""
    if not document["images_per_second"]:
        return "Nothing was answered, so there is no price to tell."
    said = f"{document['images_per_second']:.1f} images a second at {document['knee_clients']} clients"
    if document["usd_per_million_images"] is None:
        return f"{said}; the price table of {document['prices_as_of']} has no {document['instance_type']}."
    return (
        f"{said}: ${document['usd_per_million_images']:.2f} a million images on {document['instance_count']} x "
        f"{document['instance_type']} that is never idle (list price of {document['prices_as_of']}, "
        f"{document['prices_region']})."
    )


def _instances(stack: Stack, endpoint: str) -> tuple[str, int]:
    sagemaker = stack.client("sagemaker")
    try:
        config = sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointConfigName"]
    except botocore.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "ValidationException":  # SageMaker's answer for what is not there
            raise
        raise CloudUnavailable(f"there is no endpoint {endpoint} to ask: make one with `kelpie run`") from error
    variant = sagemaker.describe_endpoint_config(EndpointConfigName=config)["ProductionVariants"][0]
    return variant["InstanceType"], variant["InitialInstanceCount"]
