"""What the machine does while a training runs: processors, memory, disks and GPU, sampled by a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import torch

SAMPLE_SECONDS = 0.5
"""AWS's default ProfilingIntervalInMilliseconds."""
SERIES = (
    *("seconds", "cpu_percent", "io_wait_percent", "process_memory_bytes", "memory_percent"),
    *("disk_read_bytes_per_second", "disk_write_bytes_per_second", "gpu_percent", "gpu_memory_percent"),
)
Reading = Callable[[], dict[str, float]]


class Machine:
    """Samples, the last one taken at the end, so that the shortest training has one.

    What cannot be read, as the GPU's use without nvidia-ml-py or a container's disks, is told once and left out.
    """

    def __init__(self, sample_seconds: float = SAMPLE_SECONDS):
        self._sample_seconds = sample_seconds
        self._samples: list[dict[str, float]] = []
        self._over = threading.Event()
        self._started = time.perf_counter()
        self._readings: dict[str, Reading] = {"processors": _processors(), "memory": _memory(), "disks": _disks()}
        if torch.cuda.is_available():
            self._readings |= {"GPU": _gpu, "GPU's memory": _gpu_memory}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, list[float]]:
        """Return the samples by name: as many of each, or none."""
        self._over.set()
        self._thread.join()
        known = [name for name in SERIES if all(name in sample for sample in self._samples)]
        return {name: [sample[name] for sample in self._samples] if name in known else [] for name in SERIES}

    def _run(self) -> None:
        self._read()  # rates count from here
        over = False
        while not over:
            over = self._over.wait(self._sample_seconds)
            self._samples.append(self._read())

    def _read(self) -> dict[str, float]:
        sample = {"seconds": round(time.perf_counter() - self._started, 3)}
        for what, read in list(self._readings.items()):
            try:
                sample |= read()
            except Exception as error:  # noqa: BLE001 - whatever a platform lacks
                del self._readings[what]
                print(f"profiler: the {what} cannot be watched: {type(error).__name__}: {error}", flush=True)
        return sample


def _processors() -> Reading:
    before: Any = None

    def read() -> dict[str, float]:
        nonlocal before
        now = psutil.cpu_times()
        before, last = now, before or now
        total = sum(now) - sum(last) or 1e-9
        waited = getattr(now, "iowait", 0.0) - getattr(last, "iowait", 0.0)
        busy = total - (now.idle - last.idle) - waited
        return {"cpu_percent": _percent(busy / total), "io_wait_percent": _percent(waited / total)}

    return read


def _memory() -> Reading:
    process = psutil.Process()
    return lambda: {
        "process_memory_bytes": process.memory_info().rss,
        "memory_percent": psutil.virtual_memory().percent,
    }


def _disks() -> Reading:
    before: tuple[Any, float] | None = None

    def read() -> dict[str, float]:
        nonlocal before
        counted = psutil.disk_io_counters()
        if counted is None:
            raise OSError("the system does not count what they read and write")
        now = counted, time.perf_counter()
        before, (last, then) = now, before or now
        seconds = now[1] - then or 1e-9
        return {
            "disk_read_bytes_per_second": round((counted.read_bytes - last.read_bytes) / seconds),
            "disk_write_bytes_per_second": round((counted.write_bytes - last.write_bytes) / seconds),
        }

    return read


def _gpu() -> dict[str, float]:
    return {"gpu_percent": float(torch.cuda.utilization())}


def _gpu_memory() -> dict[str, float]:
    free, memory = torch.cuda.mem_get_info()
    return {"gpu_memory_percent": round(100 * (1 - free / memory), 2)}


def _percent(share: float) -> float:
    return round(min(100.0, max(0.0, 100 * share)), 2)
