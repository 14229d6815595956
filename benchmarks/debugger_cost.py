"""What the debugger and the profiler cost: trainings under hooks and rules, and under the profiler, against plain ones.

    python -m benchmarks.debugger_cost [--pairs 2] [--kinds debugger profiler]

Run it with the Python of the jobs' environment (`benchmarks/photographs.py` says how to find it). By default ResNet-18
from scratch on 1,258 images of 64 px, 8 epochs; `--image_size_px 24 --epochs 6` is the demo's training, a short one.
The images are generated and lie in memory: steps wait for nothing, so that every share is the largest that it can be.
Kinds alternate within one process; set-up, rules, the final flush and writing the documents count; importing smdebug,
once a job, does not. Prints one JSON document: seconds of each kind, by the wall and of the processors (which hold
where a machine is shared), the median ratio to the plain training of the same pair, and each collection's saves.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as jobs have it: a spinning thread counts as work
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "training_code"))

from batches import FeatureBatches
from debugger import create_trial, modes
from debugging import start_debugging
from engine import NoObserver, Observer, Surroundings, fit
from network import build_network
from optimizer import Group
from profiler import Profiler
from recipe import Phase

CLASSES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--image_size_px", type=int, default=64)
    parser.add_argument("--images", type=int, default=1258)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--kinds", nargs="+", choices=("debugger", "profiler"), default=["debugger", "profiler"])
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(given, Path(folder)), indent=2))


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return every kind's seconds, their ratios to the plain ones', and the saves of the last debugged training."""
    kinds: dict[str, Callable[[Path], None]] = {
        "plain": lambda _: train(given, NoObserver()),
        "debugger": lambda output: debugged(given, output),
        "profiler": lambda output: profiled(given, output),
    }
    kinds = {kind: kinds[kind] for kind in ("plain", *given.kinds)}
    wall: dict[str, list[float]] = {kind: [] for kind in kinds}
    cpu: dict[str, list[float]] = {kind: [] for kind in kinds}
    for pair in range(given.pairs):
        # The machine is not the same from minute to minute: every other pair is in the opposite order.
        for kind in list(kinds) if pair % 2 else reversed(kinds):
            started, cpu_started = time.perf_counter(), time.process_time()
            with contextlib.redirect_stdout(io.StringIO()):
                kinds[kind](folder / f"{kind}-{pair}")
            wall[kind].append(round(time.perf_counter() - started, 3))
            cpu[kind].append(round(time.process_time() - cpu_started, 3))
    measured = {"wall_seconds": wall, "cpu_seconds": cpu, "ratio": ratios(wall), "cpu_ratio": ratios(cpu)}
    return measured | ({"saves": saves(folder / "debugger-0" / "smdebug")} if "debugger" in kinds else {})


def train(given: argparse.Namespace, observer: Observer) -> None:
    """Train with the product's own loop."""
    generator = torch.Generator().manual_seed(0)
    side = given.image_size_px
    splits = []
    for images in (given.images, given.images // 5):
        pixels = torch.randn(images, 3, side, side, generator=generator).to(memory_format=torch.channels_last)
        splits.append((pixels, torch.arange(images) % CLASSES))
    torch.manual_seed(0)
    network = build_network(given.architecture, side, None).to(memory_format=torch.channels_last)
    phase = Phase("whole", 1e-3, 1e-8, 1e-2, given.batch_size, given.epochs)
    groups = [Group(list(network.parameters()), phase.learning_rate, phase.weight_decay)]
    batches = FeatureBatches(*splits, torch.device("cpu"))
    fit(network, nn.CrossEntropyLoss(), batches, phase, groups, 0, Surroundings(observer=observer))


def debugged(given: argparse.Namespace, output: Path) -> None:
    """Train under hooks and rules, as the final training does by default."""
    debugging = start_debugging(True, [output], 0)
    train(given, debugging)
    debugging.write_findings()


def profiled(given: argparse.Namespace, output: Path) -> None:
    """Train under the profiler, as the final training does by default."""
    profiler = Profiler(NoObserver())
    train(given, profiler)
    profiler.write_profile([output])


def ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Return the median over the pairs of each kind's seconds by the plain training's beside it."""
    return {
        kind: round(statistics.median(a / b for a, b in zip(seconds[kind], seconds["plain"], strict=True)), 4)
        for kind in seconds.keys() - {"plain"}
    }


def saves(tensors: Path) -> dict[str, int]:
    """Return in how many training steps each collection was saved."""
    trial = create_trial(str(tensors))
    names = ("losses", "scalars", "weights", "biases", "gradients", "updates", "activations", "activity", "inputs")
    return {
        name: len(
            {step for one in trial.tensor_names(collection=name) for step in trial.tensor(one).steps(modes.TRAIN)}
        )
        for name in names
    }


if __name__ == "__main__":
    main()
