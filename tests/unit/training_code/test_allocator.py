"""Memory that is freed and asked for again is not fetched from the system anew."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import allocator
import pytest

CODE = Path(__file__).parents[3] / "training_code"
STEPS = """
import resource, sys
import torch
from job import run

def step():
    for mebibytes in (1, 20, 40, 200):
        torch.empty(mebibytes << 18).fill_(1)

def measure():
    for _ in range(3):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        step()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

run(measure) if sys.argv[1] == "job" else measure()
"""


def page_faults(how: str) -> int:
    """Return how many pages of three steps' tensors came from the system."""
    done = subprocess.run([sys.executable, "-c", STEPS, how], cwd=CODE, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_a_job_keeps_what_it_frees() -> None:
    pages = 3 * (40 + 200) << 8  # of 4 KiB: both tensors above glibc's largest threshold
    assert page_faults("by itself") >= pages
    assert page_faults("job") < pages / 100


def test_an_older_glibc_does_not_fall_back_to_its_first_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {allocator.M_MMAP_THRESHOLD: 128 << 10}

    def mallopt(parameter: int, value: int) -> int:
        """As its malloc.c has it: what is not refused stays as it is from then on."""
        is_taken = parameter != allocator.M_MMAP_THRESHOLD or value <= 32 << 20
        if is_taken:
            settings[parameter] = value
        return int(is_taken)

    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    allocator.keep_freed_memory()
    assert settings == {allocator.M_MMAP_THRESHOLD: 32 << 20, allocator.M_TRIM_THRESHOLD: allocator.KEPT_BYTES}


def test_a_libc_without_mallopt_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: SimpleNamespace())
    allocator.keep_freed_memory()
