"""The profiler: what it leaves of a real training, and each of its rules with a fault and without."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import torch
from documents import read_document
from engine import NoObserver
from profile_rules import Profile, judge
from profiler import PHASES, Profiler
from small_trainings import Pictures, make_network, train

CODE = Path(__file__).parents[3] / "training_code"


class Waiting(Pictures):
    """A loader that is waited for."""

    def train(self, batches: Sequence[Sequence[int]], *_: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in super().train(batches):
            time.sleep(0.05)
            self.waited_seconds += 0.05
            yield batch


class Stalling(Pictures):
    """A loader that stalls at every 40th batch."""

    served = 0

    def train(self, batches: Sequence[Sequence[int]], *_: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in super().train(batches):
            self.served += 1
            if not self.served % 40:
                time.sleep(0.1)
            yield batch


def profiled(
    folder: Path,
    pictures: Pictures | None = None,
    *,
    epochs: int = 2,
    batch_size: int = 32,
    sample_seconds: float = 0.05,
) -> dict[str, Any]:
    profiler = Profiler(NoObserver(), sample_seconds=sample_seconds)
    train(profiler, make_network(), pictures or Pictures(), epochs=epochs, batch_size=batch_size)
    folders = [folder / "output", folder]  # as in a job: beside the model, and with the checkpoints
    profiler.write_profile(folders)
    documents = [read_document(one / "profile.json", "profile") for one in folders]
    assert documents[0] == documents[1]
    return documents[0]


def found(findings: list[dict[str, Any]]) -> set[str]:
    return {one["rule"] for one in findings if one["status"] == "IssuesFound"}


def test_a_training_leaves_phases_samples_operators_and_a_trace(tmp_path: Path) -> None:
    profile = profiled(tmp_path)
    seconds = {phase["name"]: phase["seconds"] for phase in profile["phases"]}
    assert profile["steps"] == 40
    assert all(seconds[name] > 0 for name in ("host_to_device", "forward", "backward", "optimizer", "evaluation"))
    assert sum(seconds.values()) == pytest.approx(profile["seconds"], rel=0.05)
    assert profile["utilisation"]["cpu_percent"]
    assert "backward" in " ".join(operator["name"].lower() for operator in profile["window"]["operators"])
    trace = json.loads(gzip.decompress((tmp_path / profile["window"]["trace"]).read_bytes()))
    assert trace["traceEvents"]
    assert found(profile["findings"]) == set()


@pytest.mark.parametrize(
    ("profiler", "imports"),
    [("torch.profiler.profile().prepare_trace()", True), ("__import__('profiler')._Window(0, 1).stop()", False)],
)
def test_the_window_does_without_the_compiler_that_torch_profiler_imports(profiler: str, imports: bool) -> None:
    """Once PyTorch's own imports nothing any more, the window can be that."""
    script = f"import sys, torch; {profiler}; sys.exit('torch._inductor' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=CODE, capture_output=True, check=False)
    assert bool(done.returncode) == imports, done.stderr


def test_a_loader_that_is_waited_for_is_found(tmp_path: Path) -> None:
    assert found(profiled(tmp_path, Waiting())["findings"]) == {"Dataloader"}


def test_steps_that_take_far_longer_than_the_others_are_found(tmp_path: Path) -> None:
    assert found(profiled(tmp_path / "fault", Stalling(), epochs=25)["findings"]) == {"StepOutlier"}
    assert found(profiled(tmp_path / "healthy", epochs=25)["findings"]) == set()


class Processors(NamedTuple):
    """Two processors that only this process uses, as psutil tells of a machine's: others' work is left out."""

    user: float
    idle: float


def two_processors() -> Processors:
    used = time.process_time()
    return Processors(used, 2 * time.perf_counter() - used)


@pytest.mark.parametrize(("batch_size", "epochs", "expected"), [(4, 25, {"BatchSize"}), (640, 1200, set())])
def test_a_batch_too_small_for_two_processors_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int, epochs: int, expected: set[str]
) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setattr(psutil, "cpu_times", two_processors)
    torch.set_num_threads(2)
    try:
        profile = profiled(tmp_path, batch_size=batch_size, epochs=epochs, sample_seconds=0.004)
    finally:
        torch.set_num_threads(threads)
    judged = next(one for one in profile["findings"] if one["rule"] == "BatchSize")
    assert "Too few samples" not in judged["message"]
    assert found(profile["findings"]) == expected


HEALTHY = {"cpu_percent": 95.0, "io_wait_percent": 1.0, "gpu_percent": 90.0, "gpu_memory_percent": 80.0}


def profile_of(steps: list[float] | None = None, data_wait: float = 1.0, **samples: float) -> Profile:
    values = {**HEALTHY, "memory_percent": 30.0, "seconds": 1.0, **samples}
    many = {name: [value] * 1000 for name, value in values.items()}
    phases = dict.fromkeys(PHASES, 10.0) | {"data_wait": data_wait}
    return Profile(steps or [100.0] * 600, phases, 60.0, many, gpus=1)


@pytest.mark.parametrize(
    ("fault", "rule"),
    [
        ({"cpu_percent": 20.0, "gpu_percent": 30.0, "gpu_memory_percent": 10.0}, "BatchSize"),
        ({"cpu_percent": 99.0, "gpu_percent": 3.0}, "CPUBottleneck"),
        ({"io_wait_percent": 80.0, "gpu_percent": 3.0, "cpu_percent": 15.0}, "IOBottleneck"),
        ({"data_wait": 45.0}, "Dataloader"),
        ({"steps": [100.0] * 600 + [2000.0] * 11}, "StepOutlier"),
    ],
)
def test_a_fault_fires_its_rule_and_no_other(fault: dict[str, Any], rule: str) -> None:
    assert found(judge(profile_of(**fault))) == {rule}
    assert found(judge(profile_of())) == set()


def test_what_is_in_use_is_told_in_words() -> None:
    told = next(one for one in judge(profile_of(cpu_percent=61.0)) if one["rule"] == "OverallSystemUsage")
    assert told["message"].startswith("In use, median: processors 61 % (95th percentile 61 %), memory 30 % (")
    assert told["values"]["cpu_percent_p95"] == 61


def test_few_samples_and_no_gpu_judge_nothing_that_needs_them() -> None:
    few = {name: [] for name in (*HEALTHY, "memory_percent", "seconds")}
    assert found(judge(Profile([], dict.fromkeys(PHASES, 0.0), 0.0, few))) == set()
