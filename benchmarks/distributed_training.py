"""Two DDP processes on two cores against one process with two threads, on the same batches.

    python -m benchmarks.distributed_training --dataset photos --weights tf_efficientnet_lite0.safetensors

Runs the job scripts in this Python (see photographs.py). The first epoch decodes and is left out. Prints one JSON
document: images a second of both, their ratio, and which share of its steps each has waited for images.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.photographs import ROOT, dataset_of, options

TRAIN = ROOT / "training_code" / "train.py"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--size", type=int, default=160)
    given = parser.parse_args()
    root = dataset_of(given)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        script = [sys.executable, ROOT / "training_code" / "prepare_dataset.py"]
        arguments = ["--dataset", root, "--model_dir", folder / "manifest", "--image_size_px", str(given.size)]
        subprocess.run([*script, *arguments], stdout=sys.stderr, check=True)
        runs = {
            "one": train(given, root, folder, (), threads=2),
            "two": train(given, root, folder, TORCHRUN, threads=1),
        }
    rates = {name: sum(epoch["images_per_second"] for epoch in epochs) / len(epochs) for name, epochs in runs.items()}
    waiting = {name: max(epoch["waiting_share"] for epoch in epochs) for name, epochs in runs.items()}
    ratio = rates["two"] / rates["one"]
    print(json.dumps({"images_per_second": rates, "ratio": ratio, "waiting_share": waiting}, indent=2))


def train(
    given: argparse.Namespace, root: Path, folder: Path, launcher: tuple[str, ...], threads: int
) -> list[dict[str, float]]:
    """Return the epochs of a training of the whole network but for the first."""
    asked = {
        "dataset": root,
        "manifest": folder / "manifest",
        "model_dir": folder / "model",
        "output_data_dir": folder / "output",
        "architecture": given.architecture,
        "weights": "channel" if given.weights else "none",
        **({"weights_file": given.weights} if given.weights else {}),
        "augmentation": "cut",
        "image_size_px": given.size,
        "batch_size": 32,
        "epochs": given.epochs,
    }
    arguments = [str(part) for name, value in asked.items() for part in (f"--{name}", value)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    subprocess.run([sys.executable, *launcher, TRAIN, *arguments], env=environment, stdout=sys.stderr, check=True)
    epochs: list[dict[str, float]] = json.loads((folder / "output" / "training_history.json").read_text())["epochs"]
    return epochs[1:]


if __name__ == "__main__":
    main()
