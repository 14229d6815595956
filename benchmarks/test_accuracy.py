"""Accuracy on the test photographs after tuning and fine-tuning, against the plain frozen head of the same run.

    python -m benchmarks.test_accuracy --dataset photos --weights tf_efficientnet_lite0.safetensors

Runs the job scripts as a run does, one after the other, in this Python (see photographs.py). Each seed prepares, tunes
by random search in the first ranges, chooses on validation, trains and only then sees the test split; its baseline is
a head on frozen features of centre squares, with AdamW's usual values. Prints one JSON document: accuracies, seconds,
and McNemar's exact test over the pairs of all seeds.
"""

import argparse
import csv
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.photographs import ROOT, dataset_of, options

BASELINE = {"learning_rate": 3e-3, "eps": 1e-8, "weight_decay": 1e-2, "batch_size": 64}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--unfreeze", default="all")
    given = parser.parse_args()
    if not given.weights:
        parser.error("--weights: accuracy without pretrained weights says nothing")
    root = dataset_of(given)
    ours, baseline, seconds = [], [], []
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            chosen = tune(given, root, Path(folder), seed)
            fine = {"unfreeze": given.unfreeze, "epochs": given.epochs, "augmentation": "strong"}
            ours.append(test(given, root, Path(folder) / "ours", seed, "pad", chosen | fine))
            seconds.append(time.monotonic() - started)
            baseline.append(test(given, root, Path(folder) / "plain", seed, "crop", BASELINE | {"epochs": 15}))
    won = sum(a and not b for one, other in zip(ours, baseline, strict=True) for a, b in zip(one, other, strict=True))
    lost = sum(b and not a for one, other in zip(ours, baseline, strict=True) for a, b in zip(one, other, strict=True))
    mean = {name: sum(map(accuracy, runs)) / len(runs) for name, runs in (("ours", ours), ("frozen head", baseline))}
    figures = {
        "accuracy": mean,
        "by_seed": [[accuracy(one), accuracy(other)] for one, other in zip(ours, baseline, strict=True)],
        "ratio_of_errors": (1 - mean["ours"]) / (1 - mean["frozen head"]),
        "won": won,
        "lost": lost,
        "mcnemar_p": mcnemar(won, lost),
        "seconds_by_seed": seconds,
    }
    print(json.dumps(figures, indent=2))


def tune(given: argparse.Namespace, root: Path, folder: Path, seed: int) -> dict[str, float]:
    """Return the best trial's values."""
    prepare(given, root, folder / "ours", "pad")
    chance, best = random.Random(seed), (-1.0, {})
    for number in range(given.trials):
        values = {
            "learning_rate": 10 ** chance.uniform(-5, -1),
            "eps": 10 ** chance.uniform(-9, -8),
            "weight_decay": 10 ** chance.uniform(-3, -1),
            "batch_size": chance.choice((64, 128)),
        }
        out = folder / f"trial-{number}"
        job(given, "train.py", seed, "pad", folder / "ours", {**values, "epochs": 10, "output_data_dir": out})
        history = json.loads((out / "training_history.json").read_text())
        reached = history["epochs"][history["best_epoch"] - 1]["valid_accuracy"]
        best = max(best, (reached, values), key=lambda one: one[0])
    return best[1]


def test(
    given: argparse.Namespace, root: Path, folder: Path, seed: int, fit: str, values: dict[str, float | str]
) -> list[bool]:
    """Train the final model; return which of the test images it knows."""
    if not (folder / "manifest").is_dir():
        prepare(given, root, folder, fit)
    final = {
        "stage": "final",
        "dataset": root,
        "inference_code": ROOT / "inference_code",
        "output_data_dir": folder / "output",
        "debugger": "false",
    }
    job(given, "train.py", seed, fit, folder, values | final)
    scored = ["--dataset", root, "--manifest", folder / "manifest", "--model", folder / "model", "--model_dir", folder]
    subprocess.run([sys.executable, ROOT / "training_code/evaluate.py", *scored], stdout=sys.stderr, check=True)
    with (folder / "predictions.csv").open() as file:
        return [row["label"] == row["predicted"] for row in csv.DictReader(file)]


def prepare(given: argparse.Namespace, root: Path, folder: Path, fit: str) -> None:
    job(given, "prepare_dataset.py", 0, fit, folder, {"dataset": root, "checkpoint_dir": folder / "features"})


def job(
    given: argparse.Namespace, script: str, seed: int, fit: str, folder: Path, values: dict[str, float | str | Path]
) -> None:
    """Run a script on frozen features."""
    preparing = script == "prepare_dataset.py"
    shared: dict[str, object] = {
        "mode": "frozen_features",
        "architecture": given.architecture,
        "weights": "channel",
        "weights_file": given.weights,
        "fit": fit,
        "seed": seed,
        "model_dir": folder / ("manifest" if preparing else "model"),
    }
    if not preparing:
        shared |= {"manifest": folder / "manifest", "features": folder / "features"}
    arguments = [str(part) for name, value in (shared | values).items() for part in (f"--{name}", value)]
    subprocess.run([sys.executable, ROOT / "training_code" / script, *arguments], stdout=sys.stderr, check=True)


def accuracy(right: list[bool]) -> float:
    return sum(right) / len(right)


def mcnemar(won: int, lost: int) -> float:
    """Return the two-sided exact p: how often a fair coin is as uneven as that."""
    tail = sum(math.comb(won + lost, k) for k in range(min(won, lost) + 1)) / 2 ** (won + lost)
    return min(1.0, 2 * tail)


if __name__ == "__main__":
    main()
