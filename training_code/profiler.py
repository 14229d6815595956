"""Where a training's time goes: the phases of each step, what the machine does meanwhile, and the hottest operators.

Phases are wall time between what the training loop tells: on a GPU, what the CPU spent on each. PyTorch's profiler
looks at a few steps of each network that is trained, of which those of the last are kept.
"""

from __future__ import annotations

import gzip
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from batches import Batches
from documents import write_document
from engine import NoObserver, Observer
from job import job_name
from machine import SAMPLE_SECONDS, Machine
from profile_rules import Profile, judge
from torch import nn

WARM_UP_STEPS, WINDOW_STEPS = 12, 3
OPERATORS = 20
POINTS = 500
PHASES = ("data_wait", "host_to_device", "forward", "backward", "optimizer", "hooks")
TRACE, DOCUMENT = "profile_trace.json.gz", "profile.json"


class Profiler(NoObserver):
    """Watches a training, and passes all that it hears on to another observer, whose time is the phase `hooks`."""

    def __init__(self, inner: Observer, window_steps: int = WINDOW_STEPS, sample_seconds: float = SAMPLE_SECONDS):
        """window_steps: how many steps torch.profiler looks at; 0 for none."""
        self._inner = inner
        self._window_steps = window_steps
        self._window_begins: int | None = None
        self._steps: list[dict[str, float]] = []
        self._step = dict.fromkeys(PHASES, 0.0)
        self._evaluation = 0.0
        self._training = False
        self._started = self._mark = time.perf_counter()
        self._batch_size = 0
        self._waited: Callable[[], float] = lambda: 0.0
        self._registered: list[Any] = []
        self._window: _Window | None = None
        self._machine = Machine(sample_seconds)

    def start(self, network: nn.Module, criterion: nn.Module, batches: Batches, steps: int) -> None:
        """Watch a network and its loss, and no others any more."""
        for handle in self._registered:
            handle.remove()
        self._registered = [
            network.register_forward_pre_hook(lambda *_: self._lap("other")),
            criterion.register_forward_hook(lambda *_: self._lap("forward")),
        ]
        self._waited = lambda: batches.waited_seconds
        self._stop_window()
        self._window_begins = len(self._steps) + WARM_UP_STEPS if self._window_steps else None
        self._timed(self._inner.start, network, criterion, batches, steps)

    def mode(self, training: bool) -> None:
        """Tell training from evaluation."""
        self._training = training
        self._mark = time.perf_counter()
        self._timed(self._inner.mode, training)

    def batches(
        self, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Pass on an epoch's batches, and time how long each is waited for and prepared."""
        inner = iter(self._inner.batches(batches))
        while True:
            self._mark, waited = time.perf_counter(), self._waited()
            batch = next(inner, None)
            if batch is None:
                return
            wait = self._waited() - waited
            self._step["data_wait"] += wait
            self._step["host_to_device"] += max(0.0, time.perf_counter() - self._mark - wait)
            self._batch_size = len(batch[1])
            self._mark = time.perf_counter()
            yield batch

    def before_update(self) -> None:
        """End the backward pass."""
        self._lap("backward")
        self._timed(self._inner.before_update)

    def after_update(self) -> None:
        """End the optimiser's turn."""
        self._lap("optimizer")
        self._timed(self._inner.after_update)

    def step(self, loss: float, accuracy: float, learning_rate: float) -> None:
        """End a step."""
        try:
            self._timed(self._inner.step, loss, accuracy, learning_rate)
        finally:
            self._steps.append(self._step)
            self._step = dict.fromkeys(PHASES, 0.0)
            if len(self._steps) == self._window_begins:
                self._window = _Window(self._window_begins, self._window_steps)
            elif self._window and len(self._steps) == self._window.first_step + self._window_steps:
                self._stop_window()

    def evaluated(self, loss: float, accuracy: float) -> None:
        """End an evaluation."""
        self._evaluation += time.perf_counter() - self._mark
        self._inner.evaluated(loss, accuracy)

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
        totals = {name: sum(step[name] for step in self._steps) for name in PHASES}
        totals["evaluation"] = self._evaluation
        totals["other"] = max(0.0, seconds - sum(totals.values()))
        milliseconds = [1000 * sum(step.values()) for step in self._steps]
        profile = Profile(milliseconds, totals, seconds, utilisation, torch.cuda.device_count())
        spent = sum(milliseconds) / 1000
        every = -(-len(milliseconds) // POINTS) or 1
        document = {
            "version": 1,
            "job": job_name("train.py"),
            "seconds": round(seconds, 3),
            "steps": len(self._steps),
            "batch_size": self._batch_size,
            "images_per_second": round(len(self._steps) * self._batch_size / spent, 1) if spent else 0,
            "machine": {
                "cpus": psutil.cpu_count() or 1,
                "threads": torch.get_num_threads(),
                "memory_bytes": psutil.virtual_memory().total,
                "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
            },
            "phases": [self._phase(name, total, seconds) for name, total in totals.items()],
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

    def _lap(self, phase: str) -> None:
        now = time.perf_counter()
        if self._training and phase in self._step:
            self._step[phase] += now - self._mark
        if self._training:
            self._mark = now

    def _timed(self, hear: Callable[..., None], *arguments: Any) -> None:
        started = time.perf_counter()
        try:
            hear(*arguments)
        finally:
            spent = time.perf_counter() - started
            self._step["hooks"] += spent
            self._mark += spent

    def _phase(self, name: str, total: float, seconds: float) -> dict[str, Any]:
        of_steps = [1000 * step[name] for step in self._steps] if name in PHASES else []
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
