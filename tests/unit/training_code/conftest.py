"""A data set of a few coloured squares, and the scripts' folder on the path, as it is where a job runs."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT / "training_code"), str(Path(__file__).parent)]

import torch  # noqa: E402 - after the path

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # smdebug, protobuf and six are full of deprecated calls
    import debugger  # noqa: F401 - imported once, here


def pytest_configure(config: pytest.Config) -> None:
    """Let an old six, which comes with smdebug's dependencies, be: it warns at every import of what is not there."""
    config.addinivalue_line("filterwarnings", "ignore:_SixMetaPathImporter:ImportWarning")


COLOURS = {"blue": (30, 60, 220), "green": (40, 200, 70), "red": (220, 40, 40)}


@pytest.fixture(autouse=True)
def by_hand(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No SM_* variables, two threads as at most, and torch's global state as it was."""
    for name in [name for name in os.environ if name.startswith("SM_") or name == "TRAINING_JOB_NAME"]:
        monkeypatch.delenv(name)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("default")


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Three classes that a glance tells apart: 8 training, 4 validation, 4 test images each, 40 x 32 px."""
    return write_dataset(tmp_path / "dataset", {"train": 8, "valid": 4, "test": 4})


@pytest.fixture
def prepared(dataset: Path, tmp_path: Path) -> Path:
    """The manifest's folder of `dataset`."""
    import prepare_dataset

    folder = tmp_path / "prepared"
    options = prepare_dataset.read_options(["--dataset", str(dataset), "--model_dir", str(folder)])
    prepare_dataset.prepare(options)
    return folder


def write_dataset(folder: Path, images: dict[str, int]) -> Path:
    generator = np.random.default_rng(0)
    for split, number in images.items():
        for name, colour in COLOURS.items():
            (folder / split / name).mkdir(parents=True)
            for index in range(number):
                noise = generator.integers(-25, 26, (32, 40, 3))
                pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                suffix = "png" if index % 2 else "jpg"
                Image.fromarray(pixels).save(folder / split / name / f"{index}.{suffix}")
    return folder


@pytest.fixture
def arguments() -> Callable[..., list[str]]:
    """Return what writes options as SageMaker's toolkit passes them: `--name value`, sorted."""

    def write(**options: Any) -> list[str]:
        return [part for name in sorted(options) for part in (f"--{name}", str(options[name]))]

    return write


@pytest.fixture
def weights_file(tmp_path: Path) -> Callable[..., Path]:
    """Return what writes a random state_dict of a torchvision network to a file."""

    def write(architecture: str, name: str = "weights.safetensors", **changes: Any) -> Path:
        import torchvision
        from safetensors.torch import save_file

        torch.manual_seed(7)
        state = {**torchvision.models.get_model(architecture, weights=None).state_dict(), **changes}
        state = {key: tensor for key, tensor in state.items() if tensor is not None}
        path = tmp_path / name
        if path.suffix == ".safetensors":
            save_file(state, path)
        else:
            torch.save({"state_dict": state}, path)
        return path

    return write


@pytest.fixture
def final(dataset: Path, prepared: Path, tmp_path: Path) -> dict[str, Any]:
    """Options of a final training that takes a second."""
    return {
        "stage": "final",
        "dataset": dataset,
        "manifest": prepared,
        "inference_code": ROOT / "inference_code",
        "model_dir": tmp_path / "model",
        "output_data_dir": tmp_path / "output",
        "architecture": "shufflenet_v2_x0_5",
        "image_size_px": 32,
        "hidden_units": 8,
        "batch_size": 8,
        "epochs": 3,
        "learning_rate": 0.003,
        "debugger_save_interval_steps": 4,
    }
