"""What the training benchmarks run on: photographs that are given, or a generated data set of the same shape.

Run the benchmarks that import this with the Python of the jobs' environment, as `python -m localcloud.containers build
pytorch --requirements training_code/requirements.txt` prints it.
"""

import argparse
import atexit
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "training_code"))
GENERATED = {"train": 24, "valid": 4, "test": 4}  # images a class
CLASSES = 10
SIZE = (400, 534)


def options(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all of them take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, help="folder with train/, valid/, test/ (default: a generated one)")
    parser.add_argument("--architecture", default="timm:tf_efficientnet_lite0")
    parser.add_argument("--weights", type=Path, help="its weights (default: random ones, which cost the same)")
    parser.add_argument("--threads", type=int, default=2)
    return parser


def dataset_of(given: argparse.Namespace) -> Path:
    """Return the data set's folder."""
    if given.dataset:
        return Path(given.dataset)
    folder = Path(tempfile.mkdtemp(prefix="photographs-"))
    atexit.register(shutil.rmtree, folder)
    generate(folder)
    return folder


def generate(folder: Path) -> None:
    """Fill a folder with a data set of pictures that no two are alike of."""
    generator = np.random.default_rng(0)
    for split, number in GENERATED.items():
        for label in range(CLASSES):
            (folder / split / f"class-{label}").mkdir(parents=True)
            for index in range(number):
                small = generator.integers(0, 256, (27, 20, 3), dtype=np.uint8)
                small[:, :, label % 3] //= 2 + label // 3
                picture = Image.fromarray(small).resize(SIZE, Image.Resampling.BICUBIC)
                picture.save(folder / split / f"class-{label}" / f"{index}.jpg", quality=90)


def network_of(given: argparse.Namespace, image_size_px: int = 224) -> Any:
    """Return the network, with its own classifier."""
    from network import build_network, read_weights

    weights = read_weights("channel", given.architecture, given.weights) if given.weights else None
    return build_network(given.architecture, image_size_px, weights)


def seconds_of(work: Callable[[], Any], times: int = 1) -> float:
    """Return the shortest of some runs."""
    durations = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        durations.append(time.perf_counter() - started)
    return min(durations)
