"""The profiler: what it leaves of a real training, and each of its rules with a fault and without."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import profiler
import psutil
import pytest
import torch
from documents import read_document
from observer import NoObserver
from profile_rules import Profile, judge
from profiler import PHASES, Profiler
from small_trainings import Pictures, make_network, train
from torch import nn

CODE = Path(__file__).parents[3] / "training_code"
SAMPLES = 1002
"""One more than BatchSize wants, and the one that rates count from."""


class Waiting(Pictures):
    """A loader that is waited for."""

    def train(self, batches: Sequence[Sequence[int]], *_: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in super().train(batches):
            time.sleep(0.05)
            self.waited_seconds += 0.05
            yield batch


class Stalling(Pictures):
    """A loader that is busy for far longer at every 20th batch."""

    served = 0

    def train(self, batches: Sequence[Sequence[int]], *_: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in super().train(batches):
            self.served += 1
            busy_until = time.thread_time() + (0.1 if not self.served % 20 else 0)
            while time.thread_time() < busy_until:
                pass
            yield batch


def profiled(
    folder: Path,
    pictures: Pictures | None = None,
    *,
    epochs: int = 2,
    batch_size: int = 32,
    sample_seconds: float = 0.05,
) -> dict[str, Any]:
    watching = Profiler(NoObserver(), sample_seconds=sample_seconds)
    train(watching, make_network(), pictures or Pictures(), epochs=epochs, batch_size=batch_size)
    folders = [folder / "output", folder]  # as in a job: beside the model, and with the checkpoints
    watching.write_profile(folders)
    documents = [read_document(one / "profile.json", "profile") for one in folders]
    assert documents[0] == documents[1]
    return documents[0]


def found(findings: list[dict[str, Any]]) -> set[str]:
    return {one["rule"] for one in findings if one["status"] == "IssuesFound"}


def test_a_training_leaves_phases_samples_and_operators(tmp_path: Path) -> None:
    profile = profiled(tmp_path)
    seconds = {phase["name"]: phase["seconds"] for phase in profile["phases"]}
    assert profile["steps"] == 40
    assert all(seconds[name] > 0 for name in ("host_to_device", "forward", "backward", "optimizer", "evaluation"))
    assert sum(seconds.values()) == pytest.approx(profile["seconds"], rel=0.05)
    assert profile["utilisation"]["cpu_percent"]
    assert "backward" in " ".join(operator["name"].lower() for operator in profile["window"]["operators"])
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


@pytest.mark.parametrize(("level", "is_told"), [("1", True), (None, False)])
def test_the_window_does_not_log_that_there_is_no_gpu(level: str | None, is_told: bool) -> None:
    """Once the library is silent of its own, nothing needs to be set."""
    environment = {name: value for name, value in os.environ.items() if name != "KINETO_LOG_LEVEL"}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    script = "import profiler; profiler._Window(0, 1).stop()"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=CODE,
        env=environment | ({"KINETO_LOG_LEVEL": level} if level else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert bool(done.stderr) == is_told, done.stderr


def test_a_loader_that_is_waited_for_is_found(tmp_path: Path) -> None:
    assert found(profiled(tmp_path, Waiting())["findings"]) == {"Dataloader"}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """On a busy machine a second one is waited for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_steps_that_take_far_longer_than_the_others_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the training thread's own clock: on a shared machine others' work would make healthy steps long."""
    monkeypatch.setattr(profiler, "time", SimpleNamespace(perf_counter=time.thread_time))
    assert found(profiled(tmp_path / "fault", Stalling(), epochs=12)["findings"]) == {"StepOutlier"}
    assert found(profiled(tmp_path / "healthy", epochs=12)["findings"]) == set()


class Times(NamedTuple):
    """What psutil tells of a machine's processors."""

    user: float
    idle: float


class Processors:
    """So many processors that only the training's thread uses, while it has its turn.

    On a shared machine others' work would count too, and what the thread waits for its turn.
    """

    def __init__(self, number: int):
        self._number = number
        self._clock = time.pthread_getcpuclockid(threading.main_thread().ident or 0)
        self._used = 0.0
        self.samples = 0

    def cpu_times(self) -> Times:
        self.samples += 1
        while (used := time.clock_gettime(self._clock)) == self._used and self.samples < SAMPLES:
            time.sleep(0.001)
        self._used = used
        return Times(used, (self._number - 1) * used)


class Lasting(Pictures):
    """Batches without end, until the machine has been looked at often enough to be judged."""

    def __init__(self, processors: Processors):
        super().__init__()
        self._processors = processors

    def train(self, batches: Sequence[Sequence[int]], *_: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        while self._processors.samples < SAMPLES:
            yield from super().train(batches)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("processors", "expected"), [(2, {"BatchSize"}), (1, set())])
def test_a_batch_too_small_for_two_processors_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processors: int, expected: set[str]
) -> None:
    """Steps of four small images are work for one thread: enough for one processor, little for two."""
    of_the_training = Processors(processors)
    monkeypatch.setattr(psutil, "cpu_times", of_the_training.cpu_times)
    profile = profiled(tmp_path, Lasting(of_the_training), epochs=1, batch_size=4, sample_seconds=0.002)
    judged = next(one for one in profile["findings"] if one["rule"] == "BatchSize")
    assert "Too few samples" not in judged["message"]
    assert found(profile["findings"]) & {"BatchSize"} == expected, judged["message"]


HEALTHY = {"cpu_percent": 95.0, "io_wait_percent": 1.0, "gpu_percent": 90.0, "gpu_memory_percent": 80.0}


def profile_of(steps: list[float] | None = None, data_wait: float = 1.0, **samples: float) -> Profile:
    values = {**HEALTHY, "memory_percent": 30.0, "seconds": 1.0, **samples}
    many = {name: [value] * 1000 for name, value in values.items()}
    phases = dict.fromkeys(PHASES, 10.0) | {"data_wait": data_wait}
    return Profile([("fine_tune", steps or [100.0] * 600)], phases, 60.0, many, gpus=1)


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


def test_a_gpu_whose_use_is_not_known_is_not_taken_for_idle() -> None:
    faults = profile_of(cpu_percent=20.0, gpu_memory_percent=10.0, io_wait_percent=80.0)
    judged = judge(replace(faults, samples={**faults.samples, "gpu_percent": []}))
    assert found(judged) == set()
    said = {one["rule"] for one in judged if "nvidia-ml-py" in one["message"]}
    assert said == {"BatchSize", "CPUBottleneck", "IOBottleneck"}


def test_steps_of_a_network_are_no_outliers_among_those_of_its_head() -> None:
    parts = [("head", [3.0] * 600), ("fine_tune", [800.0] * 30)]
    assert found(judge(replace(profile_of(), step_milliseconds=parts))) == set()
    parts[0] = ("head", [3.0] * 600 + [90.0] * 11)
    (finding,) = [one for one in judge(replace(profile_of(), step_milliseconds=parts)) if one["step"]]
    assert (finding["rule"], finding["step"]) == ("StepOutlier", 600)
    assert finding["message"].startswith("11 of 611 steps of head took longer")


def test_a_head_and_its_network_are_told_apart(tmp_path: Path) -> None:
    watching = Profiler(NoObserver(), sample_seconds=0.05)
    train(watching, make_network(), Pictures(), epochs=2, batch_size=64, name="head")
    train(watching, make_network(), Waiting(), epochs=1, name="fine_tune")
    watching.write_profile([tmp_path])
    profile = read_document(tmp_path / "profile.json", "profile")
    told = [(one["name"], one["first_step"], one["steps"], one["batch_size"]) for one in profile["parts"]]
    assert told == [("head", 0, 20, 64), ("fine_tune", 20, 20, 32)]
    seconds = sum(profile["step_times"]["milliseconds"]) / 1000
    assert profile["images_per_second"] == pytest.approx((20 * 64 + 20 * 32) / seconds, rel=0.01)
    assert profile["parts"][1]["images_per_second"] < 32 / 0.05 < profile["parts"][0]["images_per_second"]
    waits = next(one for one in profile["phases"] if one["name"] == "data_wait")
    assert waits["p50_ms"] >= 50  # of the last one's steps
    assert profile["window"]["first_step"] == 32


class Slow(NoObserver):
    """Hooks and rules that take a while: in the network, at a step's end and at an evaluation's."""

    def __init__(self) -> None:
        self._seconds = 0.0

    @property
    def seconds(self) -> float:
        return self._seconds

    def take(self, seconds: float) -> None:
        time.sleep(seconds)
        self._seconds += seconds

    def start(self, network: nn.Module, *_: Any) -> None:
        network[0].register_forward_hook(lambda *_: self.take(0.01))

    def step(self, *_: Any) -> None:
        self.take(0.01)

    def evaluated(self, *_: Any) -> None:
        self.take(0.3)


def test_what_hooks_and_rules_take_is_theirs_wherever_they_are(tmp_path: Path) -> None:
    """20 steps with 0.02 s each, two of them after evaluations with 0.01 s in the network and 0.3 s after it."""
    watching = Profiler(Slow(), sample_seconds=0.05)
    train(watching, make_network(), Pictures(train=320), epochs=2)
    watching.write_profile([tmp_path])
    phases = {one["name"]: one for one in read_document(tmp_path / "profile.json", "profile")["phases"]}
    assert phases["hooks"]["seconds"] == pytest.approx(20 * 0.02 + 2 * (0.01 + 0.3), abs=1e-6)
    assert phases["hooks"]["p50_ms"] == pytest.approx(20, abs=1e-6)


@pytest.mark.usefixtures("one_thread")
def test_steps_that_are_saved_are_no_outliers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the training thread's own clock, as above, on which a save takes ten seconds."""

    class Saving(Slow):
        steps = 0

        def take(self, seconds: float) -> None:
            self._seconds += seconds

        def start(self, *_: Any) -> None:
            pass

        def step(self, *_: Any) -> None:
            self.steps += 1
            if not self.steps % 20:
                self.take(10)

    saving = Saving()
    clock = SimpleNamespace(perf_counter=lambda: time.thread_time() + saving.seconds)
    monkeypatch.setattr(profiler, "time", clock)
    watching = Profiler(saving, sample_seconds=0.05)
    train(watching, make_network(), Pictures(), epochs=12)
    watching.write_profile([tmp_path])
    profile = read_document(tmp_path / "profile.json", "profile")
    assert sum(one > 10_000 for one in profile["step_times"]["milliseconds"]) == 12
    assert found(profile["findings"]) == set()
