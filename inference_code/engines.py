"""Engines: pixels in, logits out. serving.json names the variant that was chosen for an artifact; where this machine
cannot run it, float32 serves, which every artifact can.

Only the engine that serves is imported: torch alone takes seconds and 300 MB.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from artifacts import ArtifactError, read_file

CPUINFO = Path("/proc/cpuinfo")
INT8 = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")
"""Instructions of which one must be there for int8: products of 8 bits summed up in 32. Without them ONNX Runtime sums
up in 16 bits, which saturate (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html)."""
BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")
NEEDS = {"float32": (), "bfloat16": BFLOAT16, "int8": INT8}


class EngineUnavailable(Exception):
    """This machine cannot run a variant; the message says what is missing."""


@dataclass(frozen=True)
class Cores:
    """How an engine may use them: `workers` threads that ask it at once, and `threads` for each answer."""

    workers: int
    threads: int


class Engine(Protocol):
    """One loaded network. Many threads may ask it at once."""

    def logits(self, batch: np.ndarray) -> np.ndarray:
        """Return (N, C) float32 of (N, 3, S, S) float32."""
        ...


def open_engine(root: Path, description: dict[str, Any], variant: dict[str, Any], cores: Cores | None) -> Engine:
    """Load a variant of the artifact at `root`. description: model.json; variant: serving.json.

    cores: None for one thread an answer, or as many as torch is set to. Raises EngineUnavailable for what this machine
    lacks and for an engine that does not load, and ArtifactError.
    """
    check_processor(variant["precision"])
    try:
        return ENGINES[variant["engine"]](root, description, variant, cores)
    except (ArtifactError, EngineUnavailable):
        raise
    except Exception as error:  # engines raise what they like
        raise EngineUnavailable(f"{variant['engine']} does not load it: {type(error).__name__}: {error}") from error


def check_processor(precision: str) -> None:
    """Raise EngineUnavailable if this processor computes too slowly, or wrongly, in a precision."""
    needed = NEEDS[precision]
    if needed and not processor_features().intersection(needed):
        raise EngineUnavailable(f"the processor has none of {', '.join(needed)}")


def processor_features() -> set[str]:
    """Return the names of the instruction sets, as Linux gives them; none where it is not Linux."""
    if not CPUINFO.is_file():
        return set()
    lines = CPUINFO.read_text().splitlines()
    return {name for line in lines if line.startswith(("flags", "Features")) for name in line.split(":")[1].split()}


def processor_name() -> str:
    """Return what the processor calls itself."""
    lines = CPUINFO.read_text().splitlines() if CPUINFO.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def available_cores() -> int:
    """How many cores this process may use: containers are often given fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class TorchEngine:
    """PyTorch, eager, channels last."""

    def __init__(self, root: Path, description: dict[str, Any], variant: dict[str, Any], cores: Cores | None):
        import torch
        from networks import load_network

        self._cores, self._local = cores, threading.local()
        weights = read_file(root, description["weights_file"], description["weights_sha256"])
        self._torch, self._type = torch, getattr(torch, variant["precision"])
        self._network = load_network(description, weights).to(self._type, memory_format=torch.channels_last)

    def logits(self, batch: np.ndarray) -> np.ndarray:
        torch = self._torch
        if self._cores and not hasattr(self._local, "threads"):  # OpenMP counts them for each thread that asks
            self._local.threads = self._cores.threads
            torch.set_num_threads(self._cores.threads)
        images = torch.from_numpy(batch).to(self._type, memory_format=torch.channels_last)
        with torch.inference_mode():
            return self._network(images).float().numpy()


class OnnxRuntimeEngine:
    """ONNX Runtime on a graph of the artifact. Threads that wait for work sleep: spinning takes the decoder's cores."""

    def __init__(self, root: Path, _: dict[str, Any], variant: dict[str, Any], cores: Cores | None):
        onnxruntime = _imported("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cores.threads if cores else 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        graph = read_file(root, variant["file"], variant["sha256"])
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def logits(self, batch: np.ndarray) -> np.ndarray:
        return self._session.run(None, {"images": batch})[0]


class OpenVinoEngine:
    """OpenVINO on a graph of the artifact; each thread that asks has a request of its own."""

    def __init__(self, root: Path, _: dict[str, Any], variant: dict[str, Any], cores: Cores | None):
        openvino = _imported("openvino")
        hint = "bf16" if variant["precision"] == "bfloat16" else "f32"
        workers, threads = (cores.workers, cores.threads) if cores else (1, 1)
        options = {
            "INFERENCE_NUM_THREADS": workers * threads,
            "NUM_STREAMS": workers,
            "INFERENCE_PRECISION_HINT": hint,
        }
        graph = read_file(root, variant["file"], variant["sha256"])
        core = openvino.Core()
        self._compiled = core.compile_model(core.read_model(graph), "CPU", options)
        self._local = threading.local()

    def logits(self, batch: np.ndarray) -> np.ndarray:
        if not hasattr(self._local, "request"):
            self._local.request = self._compiled.create_infer_request()
        return self._local.request.infer([batch])[0].copy()


def _imported(name: str) -> Any:
    if importlib.util.find_spec(name) is None:
        raise EngineUnavailable(f"{name} is not installed")
    return importlib.import_module(name)


ENGINES: dict[str, Callable[[Path, dict[str, Any], dict[str, Any], Cores | None], Engine]] = {
    "torch": TorchEngine,
    "onnxruntime": OnnxRuntimeEngine,
    "openvino": OpenVinoEngine,
}
