"""Measure the memory that each job takes on a large data set: by default 10,000 photographs of 133 classes in a zip.

    python -m benchmarks.job_memory [--images 10000] [--classes 133] [--architecture resnet50]

The photographs are generated, 500 by 375 pixels as those of dogImages.zip are in the mean; the weights are random. Each
job is a process of its own in the local cloud's environment of the training image. Prints one JSON document: of each
job the peak of its resident memory in MB, its seconds, and the ratio of the peak to the baseline, which is a process
that imports torch and torchvision and does nothing.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from localcloud.containers.environments import Environments

ROOT = Path(__file__).parents[1]
SPLITS = {"train": 0.8, "valid": 0.1, "test": 0.1}
SIZE = (500, 375)
MAKE_WEIGHTS = (
    "import sys, torch, torchvision; from safetensors.torch import save_file; torch.manual_seed(0); "
    "save_file(torchvision.models.get_model(sys.argv[1], weights=None).state_dict(), sys.argv[2])"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=133)
    parser.add_argument("--architecture", default="resnet50")
    given = parser.parse_args()
    requirements = ROOT / "training_code" / "requirements.txt"
    python = str(
        Environments().with_requirements("pytorch", requirements, lambda line: print(line, file=sys.stderr)).python
    )
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(python, Path(folder), given.images, given.classes, given.architecture), indent=2))


def measure(python: str, folder: Path, images: int, classes: int, architecture: str) -> dict[str, Any]:
    """Return every job's figures."""
    archive = folder / "photographs.zip"
    write_archive(archive, images, classes)
    weights = folder / "weights.safetensors"
    subprocess.run([python, "-c", MAKE_WEIGHTS, architecture, str(weights)], check=True)
    network = ["--mode", "frozen_features", "--architecture", architecture, "--weights", "channel"]
    network += ["--weights_file", str(weights)]
    prepared, features, model = str(folder / "prepared"), str(folder / "features"), str(folder / "model")
    data = ["--dataset", str(archive), "--manifest", prepared]
    training = [*data, *network, "--features", features, "--augmentation", "cut", "--epochs", "1"]
    final = ["--output_data_dir", str(folder / "output"), "--inference_code", str(ROOT / "inference_code")]
    final += ["--unfreeze", "last_stage", "--head_epochs", "1"]
    jobs = {
        "prepare": ["prepare_dataset.py", *data[:2], *network, "--model_dir", prepared, "--checkpoint_dir", features],
        "trial": ["train.py", *training, "--model_dir", str(folder / "trial")],
        "train": ["train.py", *training, "--stage", "final", "--model_dir", model, *final],
        "evaluate": ["evaluate.py", *data, "--model", model, "--model_dir", str(folder / "scored")],
    }
    baseline = run([python, "-c", "import torch, torchvision"])
    figures: dict[str, Any] = {"archive_mb": round(archive.stat().st_size / 1e6), "baseline": baseline}
    for name, (script, *options) in jobs.items():
        figures[name] = run([python, str(ROOT / "training_code" / script), *options])
        figures[name]["ratio"] = round(figures[name]["peak_mb"] / baseline["peak_mb"], 2)
    return figures


def run(command: list[str]) -> dict[str, Any]:
    """Return the seconds and the peak of resident memory of a process. Raises CalledProcessError."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    in_bytes = 1 if sys.platform == "darwin" else 1024  # getrusage(2): kilobytes on Linux, bytes on macOS
    return {"peak_mb": round(usage.ru_maxrss * in_bytes / 1e6), "seconds": round(time.monotonic() - started, 1)}


def write_archive(path: Path, images: int, classes: int) -> None:
    """Write the data set as dogImages.zip is laid out."""
    with zipfile.ZipFile(path, "w") as archive, ProcessPoolExecutor() as pool:
        for number, content in enumerate(pool.map(photograph, range(images), chunksize=64)):
            name, turn = number % classes, number // classes * classes / images
            split = "train" if turn < SPLITS["train"] else "valid" if turn < 1 - SPLITS["test"] else "test"
            archive.writestr(f"photographs/{split}/{name + 1:03}.class_{name + 1}/{number:05}.jpg", content)


def photograph(number: int) -> bytes:
    """Return a JPEG file with shapes and grain, unlike any other."""
    generator = np.random.default_rng(number)
    coarse = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(SIZE)
    grain = generator.integers(-12, 13, (SIZE[1], SIZE[0], 1), dtype=np.int16)
    picture = Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


if __name__ == "__main__":
    main()
