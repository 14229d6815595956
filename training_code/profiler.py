"""Where a training's time goes: the phases of each step, what the machine does meanwhile, and the hottest operators.

Phases are wall time between what the training loop tells: on a GPU, what the CPU spent on each. PyTorch's profiler
looks at a few steps of each network that is trained, of which those of the last are kept.
"""

from __future__ import annotations

import gzip
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from batches import Batches
from documents import write_document
from job import job_name
from machine import SAMPLE_SECONDS, Machine
from observer import NoObserver, Observer
from profile_rules import Profile, judge
from recipe import Phase
from torch import nn

WARM_UP_STEPS, WINDOW_STEPS = 12, 3
KINETO_SILENT = "6"  # above its USDT, the highest level (libkineto/src/output_base.h)
OPERATORS = 20
POINTS = 500
OF_STEPS = ("data_wait", "host_to_device", "forward", "backward", "optimizer", "hooks")
PHASES = (*OF_STEPS, "evaluation", "other")
TRACE, DOCUMENT = "profile_trace.json.gz", "profile.json"


@dataclass
class _Part:
    """A part of the training, one network's: seconds of each phase, step by step."""

    name: str
    batch_size: int
    first_step: int
    steps: list[dict[str, float]] = field(default_factory=list)

    def milliseconds(self) -> list[float]:
        """Return how long each step took."""
        return [1000 * sum(step.values()) for step in self.steps]

    def own_milliseconds(self) -> list[float]:
        """Return the same without what the debugger took of it: a save is many times as long as a head's step."""
        return [1000 * (sum(step.values()) - step["hooks"]) for step in self.steps]


class Profiler(NoObserver):
    """Watches a training, and passes all that it hears on to another observer, whose time is the phase `hooks`."""

    def __init__(self, inner: Observer, window_steps: int = WINDOW_STEPS, sample_seconds: float = SAMPLE_SECONDS):
        """window_steps: how many steps torch.profiler looks at; 0 for none."""
        self._inner = inner
        self._window_steps = window_steps
        self._parts: list[_Part] = []
        self._step = _nothing_spent()
        self._between = _nothing_spent()
        self._training = False
        self._started = self._mark = time.perf_counter()
        self._hooked = 0.0
        self._waited: Callable[[], float] = lambda: 0.0
        self._registered: list[Any] = []
        self._window: _Window | None = None
        self._machine = Machine(sample_seconds)

    @property
    def seconds(self) -> float:
        """How long the other observer has taken so far."""
        return self._inner.seconds

    def start(
        self, network: nn.Module, criterion: nn.Module, batches: Batches, phase: Phase, steps: range, done: int
    ) -> None:
        """Watch a network and its loss, and no others any more."""
        for handle in self._registered:
            handle.remove()
        self._registered = [
            network.register_forward_pre_hook(lambda *_: self._passes("other")),
            criterion.register_forward_hook(lambda *_: self._passes("forward")),
        ]
        self._waited = lambda: batches.waited_seconds
        self._stop_window()
        self._parts.append(_Part(phase.name, phase.batch_size, sum(len(part.steps) for part in self._parts)))
        self._inner.start(network, criterion, batches, phase, steps, done)

    def mode(self, training: bool) -> None:
        """Tell training from evaluation."""
        self._training = training
        self._inner.mode(training)
        self._lap(self._between, "other")

    def batches(
        self, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Pass on an epoch's batches, and time how long each is waited for and prepared."""
        inner = iter(self._inner.batches(batches))
        while True:
            self._lap(self._between, "other")
            waited = self._waited()
            batch = next(inner, None)
            if batch is None:
                return
            self._lap(self._step, "host_to_device")
            wait = min(self._waited() - waited, self._step["host_to_device"])
            self._step["data_wait"] = wait
            self._step["host_to_device"] -= wait
            yield batch

    def before_update(self) -> None:
        """End the backward pass."""
        self._lap(self._step, "backward")
        self._inner.before_update()
        self._lap(self._step, "other")

    def after_update(self) -> None:
        """End the optimiser's turn."""
        self._lap(self._step, "optimizer")
        self._inner.after_update()

    def step(self, loss: float, plain_loss: float, accuracy: float, learning_rate: float) -> None:
        """End a step."""
        try:
            self._inner.step(loss, plain_loss, accuracy, learning_rate)
        finally:
            self._lap(self._step, "other")
            part = self._parts[-1]
            part.steps.append(self._step)
            self._step = _nothing_spent()
            if self._window_steps and len(part.steps) == WARM_UP_STEPS:
                self._window = _Window(part.first_step + WARM_UP_STEPS, self._window_steps)
            elif len(part.steps) == WARM_UP_STEPS + self._window_steps:
                self._stop_window()

    def evaluated(self, loss: float, accuracy: float) -> None:
        """End an evaluation."""
        self._lap(self._between, "evaluation")
        self._inner.evaluated(loss, accuracy)
        self._lap(self._between, "other")

    def write_profile(self, folders: Sequence[Path]) -> None:
        """Stop watching; leave profile.json and a trace in each folder. Trouble is told, and ends nothing."""
        try:
            self._write(folders)
        except Exception as error:  # noqa: BLE001 - a profile is no reason to lose a training
            print(f"profiler: no profile: {type(error).__name__}: {error}", flush=True)

    def _write(self, folders: Sequence[Path]) -> None:
        for handle in self._registered:
            handle.remove()
        seconds = time.perf_counter() - self._started
        utilisation = self._machine.stop()
        window = self._window.leave(folders) if self._window and self._window.can_end else None
        spent = [self._between, *(step for part in self._parts for step in part.steps)]
        totals = {name: sum(one[name] for one in spent) for name in PHASES}
        totals["other"] += max(0.0, seconds - sum(totals.values()))
        parts = [part for part in self._parts if part.steps]
        times = [(part.name, part.own_milliseconds()) for part in parts]
        profile = Profile(times, totals, seconds, utilisation, torch.cuda.device_count())
        milliseconds = [one for part in parts for one in part.milliseconds()]
        every = -(-len(milliseconds) // POINTS) or 1
        document = {
            "version": 1,
            "job": job_name("train.py"),
            "seconds": round(seconds, 3),
            "steps": len(milliseconds),
            "batch_size": parts[-1].batch_size if parts else 0,
            "images_per_second": _images_per_second(parts),
            "parts": [_described(part) for part in parts],
            "machine": {
                "cpus": psutil.cpu_count() or 1,
                "threads": torch.get_num_threads(),
                "memory_bytes": psutil.virtual_memory().total,
                "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
            },
            "phases": [_phase(name, total, seconds, parts) for name, total in totals.items()],
            "step_times": {
                "steps": list(range(0, len(milliseconds), every)),
                "milliseconds": [round(one, 3) for one in milliseconds[::every]],
            },
            "utilisation": _thinned(utilisation),
            "window": window,
            "findings": judge(profile),
        }
        for folder in folders:
            write_document(folder / DOCUMENT, document, "profile")
        for finding in document["findings"]:
            print(f"profiler {finding['rule']}: {finding['status']}: {finding['message']}", flush=True)

    def _stop_window(self) -> None:
        if self._window:
            self._window.stop()

    def _passes(self, phase: str) -> None:
        """Hear of a forward pass, which may be an evaluation's."""
        if self._training:
            self._lap(self._step, phase)

    def _lap(self, spent: dict[str, float], phase: str) -> None:
        """Count the time since the last lap for a phase, but for what the other observer took of it."""
        now, hooked = time.perf_counter(), self._inner.seconds
        spent["hooks"] += hooked - self._hooked
        spent[phase] += now - self._mark - (hooked - self._hooked)
        self._mark, self._hooked = now, hooked


def _nothing_spent() -> dict[str, float]:
    return dict.fromkeys(PHASES, 0.0)


def _images_per_second(parts: Sequence[_Part]) -> float:
    seconds = sum(sum(part.milliseconds()) for part in parts) / 1000
    return round(sum(len(part.steps) * part.batch_size for part in parts) / seconds, 1) if seconds else 0


def _described(part: _Part) -> dict[str, Any]:
    return {
        "name": part.name,
        "first_step": part.first_step,
        "steps": len(part.steps),
        "batch_size": part.batch_size,
        "images_per_second": _images_per_second([part]),
    }


def _phase(name: str, total: float, seconds: float, parts: Sequence[_Part]) -> dict[str, Any]:
    of_steps = [1000 * step[name] for step in parts[-1].steps] if parts and name in OF_STEPS else []
    p50, p95 = np.percentile(of_steps, [50, 95]).round(3).tolist() if of_steps else (None, None)
    share = min(1.0, total / seconds) if seconds else 0
    return {"name": name, "seconds": round(total, 4), "share": round(share, 4), "p50_ms": p50, "p95_ms": p95}


class _Window:
    """A few steps under PyTorch's profiler.

    By what torch.profiler itself drives: that first imports PyTorch's compiler, more than a second of a processor, to
    ask for one setting (torch/profiler/profiler.py, prepare_trace).
    """

    def __init__(self, first_step: int, steps: int) -> None:
        self.first_step, self._steps = first_step, steps
        device = "cuda" if torch.cuda.is_available() else None
        if device is None:  # its library logs as an error that it finds no GPU
            os.environ.setdefault("KINETO_LOG_LEVEL", KINETO_SILENT)
        self._profile: Any = torch.autograd.profiler.profile(use_device=device)
        self._running = ExitStack()
        self._running.enter_context(self._profile)
        self._thread: int | None = threading.get_ident()

    @property
    def can_end(self) -> bool:
        """Whether it has ended, or can be: by the thread that began it, as PyTorch crashes in others."""
        return self._thread in (None, threading.get_ident())

    def stop(self) -> None:
        self._running.close()
        self._thread = None

    def leave(self, folders: Sequence[Path]) -> dict[str, Any]:
        """Write the trace to each folder, and return the hottest operators."""
        self.stop()
        with tempfile.TemporaryDirectory() as scratch:  # PyTorch exports a trace once, and not packed
            plain = Path(scratch, "trace.json")
            self._profile.export_chrome_trace(str(plain))
            packed = gzip.compress(plain.read_bytes())
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / TRACE).write_bytes(packed)
        events = [
            (event.key, event.count, event.self_cpu_time_total / 1000, event.self_device_time_total / 1000)
            for event in self._profile.key_averages()
        ]
        by = 3 if any(event[3] for event in events) else 2
        total = sum(event[by] for event in events) or 1
        hottest = sorted(events, key=lambda event: -event[by])[:OPERATORS]
        return {
            "first_step": self.first_step,
            "steps": self._steps,
            "trace": TRACE,
            "operators": [
                {
                    "name": name,
                    "calls": calls,
                    "cpu_ms": round(cpu, 4),
                    "gpu_ms": round(gpu, 4),
                    "share": round((name, calls, cpu, gpu)[by] / total, 4),
                }
                for name, calls, cpu, gpu in hottest
            ],
        }


def _thinned(samples: dict[str, list[float]]) -> dict[str, list[float]]:
    every = -(-len(samples["seconds"]) // POINTS) or 1
    return {name: values[::every] for name, values in samples.items()}
