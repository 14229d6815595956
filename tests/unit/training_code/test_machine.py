"""Samples of the machine, where it tells everything and where it does not."""

from __future__ import annotations

import time
from typing import Any

import machine
import psutil
import pytest
import torch
from machine import SERIES, Machine

OF_DISKS = {"disk_read_bytes_per_second", "disk_write_bytes_per_second"}
OF_GPUS = {"gpu_percent", "gpu_memory_percent"}


def sampled() -> dict[str, list[float]]:
    watched = Machine(sample_seconds=0.01)
    while not watched._samples:
        time.sleep(0.01)
    samples = watched.stop()
    assert set(samples) == set(SERIES)
    assert {len(values) for values in samples.values() if values} == {len(samples["seconds"])}
    assert len(samples["seconds"]) > 1
    return samples


def missing(samples: dict[str, list[float]]) -> set[str]:
    return {name for name, values in samples.items() if not values}


def test_there_is_a_sample_of_the_shortest_training() -> None:
    assert len(Machine(sample_seconds=60).stop()["cpu_percent"]) == 1


def test_a_gpu_without_nvidia_ml_py_is_told_once_and_costs_no_other_sample(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing_module() -> int:
        raise ModuleNotFoundError("nvidia-ml-py does not seem to be installed")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "utilization", missing_module)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (25, 100))

    samples = sampled()

    assert missing(samples) == {"gpu_percent"} | (missing(samples) & OF_DISKS)
    assert samples["gpu_memory_percent"][0] == 75
    said = "profiler: the GPU cannot be watched: ModuleNotFoundError: nvidia-ml-py does not seem to be installed"
    assert capsys.readouterr().out.count(said) == 1


@pytest.mark.parametrize("answer", [None, NotImplementedError("no /proc/diskstats"), OSError("gone")], ids=repr)
def test_a_container_that_does_not_count_its_disks_has_all_other_samples(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: Any
) -> None:
    answers = [psutil.disk_io_counters()] * 2 if isinstance(answer, OSError) else []  # gone in the middle

    def counters() -> Any:
        if answers:
            return answers.pop()
        if answer:
            raise answer
        return None

    monkeypatch.setattr(machine.psutil, "disk_io_counters", counters)

    assert missing(sampled()) == OF_DISKS | OF_GPUS
    assert capsys.readouterr().out.count("profiler: the disks cannot be watched") == 1
