"""The rows of the table: what is measured, beside which baseline, and which goal it is held to."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving.models import Models, Trained
from benchmarks.serving.servers import Client, Server, baseline

HERE = Path(__file__).parent
SATURATING_CLIENTS = 8
EVALUATION_BATCH = 32  # evaluate.py's
PHASES = {
    "Ray is imported": "Usage stats collection",
    "ray start": "Ray runtime started",
    "serve start": "Started Serve",
    "the application is built": "Imported and built app",
    "the replica loads the model and answers its golden images": ") serving ",
}
"""By the line of the log that ends each."""
ROUNDS = 3  # of what is compared in milliseconds: how fast a shared machine is changes from minute to minute
BOUNDED = 5  # times one client's p50: a queue that grows is beyond it within seconds
STEP = 0.95  # from a rate that cannot be borne to the next
SHARE_OF_MOST = 0.9
MEMORY_WARM_UP = 0.1  # of the memory samples, until all buffers have grown
MEMORY_RECORDS = 10
FLAT = 0.02


@dataclass
class Bench:
    """One model, how long each measurement takes, and what earlier ones found."""

    models: Models
    client: Client
    trained: Trained
    artifact: Path
    seconds: float
    soak_seconds: float
    say: Callable[[str], None]
    most: float | None = None
    """Images a second with all clients asking."""

    def saturated(self, server: Server) -> dict[str, Any]:
        found = self.client.ask(server, self.seconds, clients=SATURATING_CLIENTS)
        self.most = found["images_per_second"]
        return found

    def in_serving_environment(self, script: str, *arguments: object) -> dict[str, Any]:
        """Return the JSON that a script of this folder prints in the artifact's own environment."""
        found: dict[str, Any] = json.loads(_run(self.models.serving(self.artifact), script, self.artifact, *arguments))
        return found


def core_ms(bench: Bench, server: Server) -> dict[str, Any]:
    """Processor time an image, of all processes of the server, with clients that ask without a pause."""
    found = bench.saturated(server)
    return {name: found[name] for name in ("core_ms", "core_ms_by_part", "images_per_second", "failed")}


def baseline_core_ms(bench: Bench) -> dict[str, Any]:
    """The same of the stock way: the better of one worker and two."""
    found = {}
    for workers in (1, 2):
        with baseline(bench.client.python, bench.trained.artifact, bench.trained.images[0], workers) as server:
            asked = bench.client.ask(server, bench.seconds, clients=SATURATING_CLIENTS)
        found[f"{workers} workers"] = {name: asked[name] for name in ("core_ms", "images_per_second", "failed")}
    return {**found, "core_ms": min(one["core_ms"] for one in found.values())}


def beyond(bench: Bench, server: Server) -> dict[str, Any]:
    """What an answer takes beyond decoding and engine: processor time, the adapter apart, and time of one client.

    Milliseconds are medians of rounds, in each of which everything is measured once.
    """
    rounds = [_beyond(bench, server, bench.seconds / ROUNDS) for _ in range(ROUNDS)]
    parts = ("core_ms", "p50_ms", "adapter_p50_ms", "replica_p50_ms")
    return {
        "rounds": rounds,
        **{part: statistics.median(found[part] for found in rounds) for part in parts},
        "goals": {"core_ms": 4, "p50_ms": 4},
    }


def _beyond(bench: Bench, server: Server, seconds: float) -> dict[str, Any]:
    engine = bench.in_serving_environment("engine_cost.py", seconds, *bench.trained.images)
    single = bench.client.ask(server, seconds, clients=1)["p50_ms"]
    past_adapter = bench.client.ask(server, seconds, clients=1, past_adapter=True)["p50_ms"]
    busy = bench.client.ask(server, seconds, clients=SATURATING_CLIENTS)
    adapter, computing = busy["core_ms_by_part"].get("adapter", 0.0), engine["decode_ms"] + engine["engine_ms"]
    return {
        "engine": engine,
        "core_ms": busy["core_ms"] - adapter - engine["decode_and_engine_core_ms"],
        "core_ms_by_part": busy["core_ms_by_part"],
        "single_client_p50_ms": single,
        "p50_ms": single - computing,
        "adapter_p50_ms": single - past_adapter,
        "replica_p50_ms": past_adapter - computing,
    }


def tail(bench: Bench, server: Server) -> dict[str, Any]:
    """p99 at half of the maximum load against one client's p50: asked evenly, and at random moments beside it."""
    most = bench.most or bench.saturated(server)["images_per_second"]
    single = bench.client.ask(server, bench.seconds, clients=1)["p50_ms"]
    kept = ("images_per_second", "p50_ms", "p95_ms", "p99_ms", "failed")
    loads = {}
    for name, evenly in (("evenly", True), ("at_random", False)):
        half = bench.client.ask(server, 2 * bench.seconds, rate=most / 2, evenly=evenly)
        loads[name] = {**{one: half[one] for one in kept}, "ratio": half["p99_ms"] / single}
    return {"single_client_p50_ms": single, **loads, "ratio": loads["evenly"]["ratio"], "goals": {"ratio": 3}}


def photograph(bench: Bench) -> dict[str, Any]:
    """A photograph of 12 megapixels to a tensor, against Pillow at full size."""
    return bench.in_serving_environment("photograph.py", bench.trained.images[0]) | {"goals": {"ratio": 6}}


def startup(server: Server) -> dict[str, Any]:
    """From the start of the container's process to the first answer, and where that time went by its log."""
    phases, since = {}, 0.0
    for phase, sign in PHASES.items():
        until = next((seconds for seconds, line in server.log if seconds >= since and sign in line), None)
        if until is not None:
            phases[phase], since = round(until - since, 2), until
    phases["until an answer is there"] = round(server.started_seconds - since, 2)
    return {"seconds": server.started_seconds, "phases": phases, "goals": {"seconds": 15}}


def soak(bench: Bench, server: Server) -> dict[str, Any]:
    """Ninety per cent of what the server bears: how its memory goes, and failed requests."""
    most, tried = bearable(bench, server)
    found = bench.client.ask(server, bench.soak_seconds, rate=SHARE_OF_MOST * most, evenly=True)
    samples = found["memory_mb"]
    totals = [sum(sample.values()) for sample in samples]
    warm = totals[round(MEMORY_WARM_UP * len(totals)) :]
    slope = statistics.linear_regression(range(len(warm)), warm).slope
    kept = ("answered", "failed", "failures", "images_per_second", "p50_ms", "p99_ms")
    return {
        "seconds": bench.soak_seconds,
        "most": {"images_per_second": most, "tried": tried},
        **{name: found[name] for name in kept},
        "memory_mb": [
            {part: round(resident, 1) for part, resident in sample.items()}
            for sample in samples[:: max(1, len(samples) // MEMORY_RECORDS)]
        ],
        "growth": slope * len(warm) / warm[0],
        "goals": {"growth": FLAT, "failed": 0},
    }


def bearable(bench: Bench, server: Server) -> tuple[float, list[dict[str, float]]]:
    """Return the highest rate, evenly spread, at which nothing queues up, and what was tried on the way down to it.

    Clients that ask without a pause find the throughput at which the queue is always full; it may be less that can be
    borne by a machine that has its client to bear, too.
    """
    single = bench.client.ask(server, bench.seconds, clients=1)["p50_ms"]
    rate, tried = bench.saturated(server)["images_per_second"], list[dict[str, float]]()
    while not tried or tried[-1]["p99_ms"] > BOUNDED * single:
        rate *= STEP if tried else 1
        found = bench.client.ask(server, 2 * bench.seconds, rate=rate, evenly=True)
        tried.append({"rate": rate, "p50_ms": found["p50_ms"], "p99_ms": found["p99_ms"]})
    return rate, tried


def accuracy(bench: Bench, folder: Path) -> dict[str, Any]:
    """Every variant on the test photographs, those chosen on validation; and float32 here against evaluation's."""
    _, chosen = bench.models.optimise(bench.trained, "fastest")
    _, tested = bench.models.optimise(bench.trained, "fastest", "test")
    measured = {row["variant"]: row["measured"] for row in tested["variants"] if row["measured"]}
    float32 = measured["float32"]["accuracy"]
    rows = {
        name: {
            "accuracy": figures["accuracy"],
            "lost_points": 100 * (float32 - figures["accuracy"]),
            "labels_as_float32": figures["agreement"],
            "largest_difference": figures["largest_difference"],
        }
        for name, figures in measured.items()
    }
    mine = _logits(bench.models.serving(bench.trained.artifact), bench.trained, 1, folder / "serving.npy")
    evaluation = _logits(bench.models.training, bench.trained, EVALUATION_BATCH, folder / "evaluation.npy")
    return {
        "images": tested["images"],
        "chosen_on_validation": chosen["chosen"],
        "variants": rows,
        "lost_points": rows[chosen["chosen"]]["lost_points"],
        "labels_as_float32": rows[chosen["chosen"]]["labels_as_float32"],
        "float32_against_evaluation": float(np.abs(mine - evaluation).max()),
        "goals": {"lost_points": 0.3, "labels_as_float32": 0.995, "float32_against_evaluation": 0.001},
    }


def _logits(python: Path, trained: Trained, batch: int, out: Path) -> np.ndarray:
    _run(python, "logits.py", trained.artifact, batch, out, *trained.images)
    logits: np.ndarray = np.load(out)
    return logits


def _run(python: Path, script: str, *arguments: object) -> str:
    command: Sequence[str] = [str(python), str(HERE / script), *map(str, arguments)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}  # as the local cloud's containers have it
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
