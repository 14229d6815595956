"""What the debugger and the profiler cost: a training under hooks and rules, or the profiler, against a plain one.

    python -m benchmarks.debugger_cost [--pairs 2] [--kinds debugger profiler plain] [--turn_steps 4]

Run it with the Python of the jobs' environment (`benchmarks/photographs.py` says how to find it). By default ResNet-18
from scratch on 1,258 images of 64 px, 16 epochs; `--image_size_px 24 --epochs 6` is the demo's training, a short one.
The images are generated and lie in memory: steps wait for nothing, so that every share is the largest that it can be.

The machine is not the same from one minute to the next, by more than what is to be measured. So both trainings of a
pair go on side by side, each in a process of its own and one at a time, four steps each: what drifts is the same for
both. What is measured is all of a job's: importing smdebug, set-up, rules, the final flush, writing the documents. Only
what the profiler's thread takes, 1.4 milliseconds a second, is left out while the other one has its turn. A pair of two
plain trainings (`plain`) tells the error.

Prints one JSON document: seconds of each training of each pair, by the wall and of the processors, each pair's ratio,
the mean of these with its standard error, and each collection's saves.
"""

import argparse
import contextlib
import io
import json
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as jobs have it: a spinning thread counts as work
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "training_code"))

from allocator import keep_freed_memory
from batches import FeatureBatches
from debugging import start_debugging
from engine import Surroundings, fit
from network import build_network
from observer import NoObserver, Observer
from optimizer import Group
from profiler import Profiler
from recipe import Phase

CLASSES = 10
COLLECTIONS = ("losses", "scalars", "weights", "biases", "gradients", "updates", "activations", "activity", "inputs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--image_size_px", type=int, default=64)
    parser.add_argument("--images", type=int, default=1258)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--turn_steps", type=int, default=4)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["debugger", "profiler"])
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    measured = {}
    for kind in given.kinds:
        pairs = []
        for number in range(given.pairs):
            with tempfile.TemporaryDirectory() as folder:
                pairs.append(measure_pair(given, kind, Path(folder), plain_first=number % 2 == 1))
        measured[kind] = {"pairs": pairs, **summary(pairs, "wall"), **summary(pairs, "cpu")}
    print(json.dumps(measured, indent=2))


def measure_pair(given: argparse.Namespace, kind: str, folder: Path, *, plain_first: bool) -> dict[str, Any]:
    """Return the seconds of a watched and of a plain training that take turns."""
    context = multiprocessing.get_context("spawn")
    seconds = {"watched": [0.0, 0.0], "beside": [0.0, 0.0]}
    connections = {}
    for name, trained in (("watched", kind), ("beside", "plain")):
        connections[name], theirs = context.Pipe()
        context.Process(target=take_turns, args=(theirs, given, trained, folder)).start()
        theirs.close()
    waiting = ["beside", "watched"] if plain_first else ["watched", "beside"]
    while waiting:
        name = waiting.pop(0)
        connections[name].send("your turn")
        *turn, over = connections[name].recv()
        seconds[name] = [one + more for one, more in zip(seconds[name], turn, strict=True)]
        if not over:
            waiting.append(name)
    found: dict[str, Any] = {}
    for index, unit in enumerate(("wall", "cpu")):
        watched, beside = seconds["watched"][index], seconds["beside"][index]
        found[unit] = {kind: round(watched, 3), "beside": round(beside, 3), "ratio": watched / beside}
    return found | ({"saves": saves(folder / "smdebug")} if kind == "debugger" else {})


def take_turns(referee: Connection, given: argparse.Namespace, kind: str, folder: Path) -> None:
    """Train in a process of its own, whenever it is its turn."""
    keep_freed_memory()
    torch.set_num_threads(given.threads)
    with contextlib.redirect_stdout(io.StringIO()):
        warm_up = argparse.Namespace(**{**vars(given), "images": 2 * given.batch_size, "epochs": 1})
        train(warm_up, NoObserver())  # what PyTorch does once a process is neither's
        turns = Turns(referee, given.turn_steps)
        KINDS[kind](given, folder, turns)
        turns.end(over=True)


class Turns:
    """The turns of one of two trainings; the referee hears what each of them took."""

    def __init__(self, referee: Connection, steps: int):
        """steps: of a turn."""
        self._referee, self._steps, self._done = referee, steps, 0
        self._begin()

    def stepped(self) -> None:
        """End a step, and the turn if it was its last."""
        self._done += 1
        if self._done % self._steps == 0:
            self.end()
            self._begin()

    def end(self, *, over: bool = False) -> None:
        """End a turn."""
        wall, cpu = self._started
        self._referee.send((time.perf_counter() - wall, time.process_time() - cpu, over))

    def _begin(self) -> None:
        self._referee.recv()
        self._started = time.perf_counter(), time.process_time()


class Taking:
    """An observer that ends a training's turns, and passes on what it hears."""

    def __init__(self, turns: Turns, inner: Observer | None = None):
        self._turns, self._inner = turns, inner or NoObserver()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def step(self, loss: float, plain_loss: float, accuracy: float, learning_rate: float) -> None:
        """End a step."""
        self._inner.step(loss, plain_loss, accuracy, learning_rate)
        self._turns.stepped()


def train(given: argparse.Namespace, observer: Any) -> None:
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


def debugged(given: argparse.Namespace, output: Path, turns: Turns) -> None:
    """Train under hooks and rules, as the final training does by default."""
    debugging = start_debugging(True, [output], 0)
    train(given, Taking(turns, debugging))
    debugging.write_findings()


def profiled(given: argparse.Namespace, output: Path, turns: Turns) -> None:
    """Train under the profiler, as the final training does by default: told of a step before its turn is over."""
    profiler = Profiler(NoObserver())
    train(given, Taking(turns, profiler))
    profiler.write_profile([output])


KINDS: dict[str, Callable[[argparse.Namespace, Path, Turns], None]] = {
    "debugger": debugged,
    "profiler": profiled,
    "plain": lambda given, _, turns: train(given, Taking(turns)),
}


def summary(pairs: list[dict[str, Any]], unit: str) -> dict[str, Any]:
    """Return the mean of the pairs' ratios and its standard error, None of one pair."""
    ratios = [pair[unit]["ratio"] for pair in pairs]
    error = statistics.stdev(ratios) / math.sqrt(len(ratios)) if len(ratios) > 1 else None
    return {f"{unit}_ratio": round(statistics.mean(ratios), 4), f"{unit}_error": error and round(error, 4)}


def saves(tensors: Path) -> dict[str, int]:
    """Return in how many training steps each collection was saved."""
    from debugger import create_trial, modes  # not before: importing smdebug is part of what is measured

    trial = create_trial(str(tensors))
    return {
        name: len(
            {step for one in trial.tensor_names(collection=name) for step in trial.tensor(one).steps(modes.TRAIN)}
        )
        for name in COLLECTIONS
    }


if __name__ == "__main__":
    main()
