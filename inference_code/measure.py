"""Measure one variant in a process of its own: its answers, and what they cost.

    python measure.py ARTIFACT VARIANT.json IMAGES.npy MEASURED.npz STARTED

IMAGES.npy: (N, 3, S, S) float32, the last of them the golden images. STARTED: time.time() before this process was
started. MEASURED.npz gets the logits of all of them and the figures of variants.json.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from artifacts import read_document
from engines import Cores, Engine, available_cores, open_engine

ROUNDS = 3  # in each of which every way to use the cores is tried: what else the machine does hits all of them
TRIED_SECONDS = 0.5  # for each way in a round
LATENCIES = 15
BATCH_SIZES = (1, 4)
WORTH_IT = 1.1  # how much faster a larger batch or an answer on all cores must be: both make others wait
STATUS = Path("/proc/self/status")


def measure(
    root: Path, variant: dict[str, Any], images: np.ndarray, started: float
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the logits, (N, C), and the figures. Raises engines.EngineUnavailable."""
    description, cores = read_document(root, "model"), available_cores()
    single = Cores(cores, 1)
    engine = open_engine(root, description, variant, single)
    engine.logits(np.ascontiguousarray(images[:1]))
    start_seconds = time.time() - started
    memory_mb = _memory_mb()
    logits = np.concatenate(list(_answers(engine, single, images, 1)))
    ways = list(_ways(cores))
    engines = {used: open_engine(root, description, variant, used) for used, _ in ways}
    rounds = [[_throughput(engines[used], used, images, size) for used, size in ways] for _ in range(ROUNDS)]
    rates, core_ms = np.median(np.array(rounds), axis=0).T
    best = 0
    for number in range(1, len(ways)):
        if rates[number] > WORTH_IT * rates[best]:
            best = number
    used, batch_size = ways[best]
    return logits, {
        "latency_ms": _latency_ms(engines[used], images),
        "images_per_second": float(rates[best]),
        "core_ms": float(core_ms[best]),
        "memory_mb": memory_mb,
        "start_seconds": start_seconds,
        "size_bytes": (root / (variant["file"] or description["weights_file"])).stat().st_size,
        "settings": {"threads": used.threads, "batch_size": batch_size},
    }


def _memory_mb() -> float:
    """Return the resident memory of this process; its peak, where the system tells no more."""
    if not STATUS.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:"))


def _ways(cores: int) -> Iterator[tuple[Cores, int]]:
    """How the cores may be used, the one that lets others wait least first."""
    for batch_size in BATCH_SIZES:
        yield Cores(cores, 1), batch_size
    if cores > 1:
        yield Cores(1, cores), 1


def _throughput(engine: Engine, cores: Cores, images: np.ndarray, batch_size: int) -> tuple[float, float]:
    """Return images a second and milliseconds of processor time an image, with all workers busy."""
    batch = images[[number % len(images) for number in range(batch_size)]]

    def repeat(seconds: float) -> int:
        deadline, done = time.monotonic() + seconds, 0
        while not done or time.monotonic() < deadline:
            done += len(engine.logits(batch))
        return done

    with ThreadPoolExecutor(cores.workers) as pool:
        list(pool.map(repeat, [0.0] * cores.workers))  # threads are started, buffers made
        begun, worked = time.monotonic(), time.process_time()
        done = sum(pool.map(repeat, [TRIED_SECONDS] * cores.workers))
        return done / (time.monotonic() - begun), 1000 * (time.process_time() - worked) / done


def _answers(engine: Engine, cores: Cores, images: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    batches = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
    with ThreadPoolExecutor(cores.workers) as pool:
        yield from pool.map(lambda batch: engine.logits(np.ascontiguousarray(batch)), batches)


def _latency_ms(engine: Engine, images: np.ndarray) -> float:
    seconds = []
    for number in range(LATENCIES):
        image = np.ascontiguousarray(images[number % len(images)][None])
        begun = time.perf_counter()
        engine.logits(image)
        seconds.append(time.perf_counter() - begun)
    return 1000 * statistics.median(seconds)


def main(arguments: list[str]) -> None:
    root, variant, images, measured, started = arguments
    pixels = np.load(images, mmap_mode="c")  # torch warns of what it may not write to
    logits, figures = measure(Path(root), json.loads(Path(variant).read_bytes()), pixels, float(started))
    np.savez(measured, logits=logits, figures=json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1:])
