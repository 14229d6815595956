"""What an answer costs without a server: decoding and the engine, by the artifact's own code, in its own environment.

    engine_cost.py ARTIFACT SECONDS IMAGE...

As many workers, threads and images at once as the server has. Prints milliseconds of one image alone, and milliseconds
of processor time with all workers busy.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np


def main(arguments: list[str]) -> None:
    artifact, seconds, images = (
        Path(arguments[0]),
        float(arguments[1]),
        [Path(name).read_bytes() for name in arguments[2:]],
    )
    sys.path.insert(0, str(artifact / "code"))
    import inference
    from decoding import preprocess
    from engines import Cores, available_cores

    settings = inference.serving_settings(artifact)
    workers, batch = max(1, available_cores() // settings["threads"]), settings["batch_size"]
    model = inference.verified_model(artifact, None, Cores(workers, settings["threads"]))
    preprocessing = model.description["preprocessing"]

    def decode(number: int) -> np.ndarray:
        return preprocess(images[number % len(images)], preprocessing)

    def answer(number: int) -> None:
        model.engine.logits(np.stack([decode(number + index) for index in range(batch)]))

    pixels = [decode(number)[None] for number in range(len(images))]
    figures: dict[str, Any] = {
        "variant": model.serving["variant"],
        "workers": workers,
        **settings,
        "decode_ms": alone(decode, seconds / 4),
        "engine_ms": alone(lambda number: model.engine.logits(pixels[number % len(pixels)]), seconds / 4),
        "decode_core_ms": saturated(decode, workers, seconds / 4),
    }
    both = saturated(answer, workers, seconds) / batch
    figures |= {"decode_and_engine_core_ms": both, "engine_core_ms": both - figures["decode_core_ms"]}
    print(json.dumps(figures))


def alone(work: Callable[[int], object], seconds: float) -> float:
    """Return the median of what one call after the other takes, in milliseconds."""
    taken, deadline, number = [], time.perf_counter() + seconds, 0
    while (begun := time.perf_counter()) < deadline:
        work(number)
        taken.append(time.perf_counter() - begun)
        number += 1
    return 1000 * statistics.median(taken)


def saturated(work: Callable[[int], object], workers: int, seconds: float) -> float:
    """Return the processor time of a call while so many threads call without a pause, in milliseconds."""

    def repeat(worker: int) -> int:
        deadline, number = time.perf_counter() + seconds, 0
        while time.perf_counter() < deadline:
            work(worker + number * workers)
            number += 1
        return number

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers)))
        begun = time.process_time()
        done = sum(pool.map(repeat, range(workers)))
        return 1000 * (time.process_time() - begun) / done


if __name__ == "__main__":
    main(sys.argv[1:])
