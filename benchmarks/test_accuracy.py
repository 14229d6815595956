"""Accuracy on the test photographs after tuning and fine-tuning, against the plain frozen head of the same run.

    python -m benchmarks.test_accuracy --dataset photos --weights tf_efficientnet_lite0.safetensors

Runs the job scripts as a run does, one after the other, in this Python (see photographs.py). Each seed tunes by random
search in the first ranges, chooses on validation, trains and only then sees the test split; its baseline is a head on
frozen features of centre squares, with AdamW's usual values. Prints one JSON document: accuracies, McNemar's exact test
over the pairs of all seeds, and what each seed has cost, preparation and tuning included.
"""

import argparse
import csv
import json
import math
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.photographs import ROOT, dataset_of, options

HEAD_EPOCHS = 10  # of a trial, and of the head before fine-tuning
PLAIN_SIZE_PX = 224
BASELINE = {"learning_rate": 3e-3, "eps": 1e-8, "weight_decay": 1e-2, "batch_size": 64, "epochs": 15}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--unfreeze", default="last_stage")
    parser.add_argument("--image-size-px", type=int, default=256)
    parser.add_argument("--folder", type=Path, help="where it works, and finds the features of an earlier run")
    given = parser.parse_args()
    if not given.weights:
        parser.error("--weights: accuracy without pretrained weights says nothing")
    root = dataset_of(given)
    ours, baseline, seconds = [], [], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        plain, padded = folder / "crop", folder / "pad"
        prepare(given, root, plain)
        preparing = core_seconds(lambda: prepare(given, root, padded))
        for seed in given.seeds:

            def train(seed: int = seed) -> None:
                chosen = tune(given, padded, seed)
                fine = {"unfreeze": given.unfreeze, "epochs": given.epochs, "augmentation": "cut"}
                ours.append(test(given, root, padded, seed, chosen | fine))

            seconds.append(preparing + core_seconds(train))
            baseline.append(test(given, root, plain, seed, BASELINE))
            print(f"seed {seed}: {accuracy(ours[-1]):.4f}, frozen head {accuracy(baseline[-1]):.4f}", file=sys.stderr)
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
        "core_seconds_by_seed": seconds,
    }
    print(json.dumps(figures, indent=2))


def core_seconds(work: Callable[[], None]) -> float:
    """Return the seconds that the jobs of `work` have kept cores busy, all cores together."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def tune(given: argparse.Namespace, folder: Path, seed: int) -> dict[str, float | str]:
    """Return the best trial's values."""
    chance = random.Random(seed)
    best: tuple[float, dict[str, float | str]] = (-1.0, {})
    for number in range(given.trials):
        values: dict[str, float | str] = {
            "learning_rate": 10 ** chance.uniform(-5, -1),
            "eps": 10 ** chance.uniform(-9, -8),
            "weight_decay": 10 ** chance.uniform(-3, -1),
            "batch_size": chance.choice((64, 128)),
        }
        out = folder / f"trial-{seed}-{number}"
        job(given, "train.py", seed, folder, {**values, "epochs": HEAD_EPOCHS, "output_data_dir": out})
        history = json.loads((out / "training_history.json").read_text())
        reached = history["epochs"][history["best_epoch"] - 1]["valid_accuracy"]
        best = max(best, (reached, values), key=lambda one: one[0])
    return best[1]


def test(
    given: argparse.Namespace, root: Path, folder: Path, seed: int, values: Mapping[str, float | str]
) -> list[bool]:
    """Train the final model; return which of the test images it knows."""
    final = {
        "stage": "final",
        "dataset": root,
        "inference_code": ROOT / "inference_code",
        "output_data_dir": folder / f"output-{seed}",
        "debugger": "false",
    }
    job(given, "train.py", seed, folder, {**values, **final})
    scored = ["--dataset", root, "--manifest", folder / "manifest", "--model", folder / f"model-{seed}"]
    scored += ["--model_dir", folder / f"scored-{seed}"]
    subprocess.run([sys.executable, ROOT / "training_code/evaluate.py", *scored], stdout=sys.stderr, check=True)
    with (folder / f"scored-{seed}/predictions.csv").open() as file:
        return [row["label"] == row["predicted"] for row in csv.DictReader(file)]


def prepare(given: argparse.Namespace, root: Path, folder: Path) -> None:
    """Write the manifest and the features of pictures that are fitted as the folder's name says."""
    job(given, "prepare_dataset.py", 0, folder, {"dataset": root, "checkpoint_dir": folder / "features"})


def job(
    given: argparse.Namespace, script: str, seed: int, folder: Path, values: Mapping[str, float | str | Path]
) -> None:
    """Run a script on frozen features."""
    preparing, fit = script == "prepare_dataset.py", folder.name
    shared: dict[str, object] = {
        "mode": "frozen_features",
        "architecture": given.architecture,
        "weights": "channel",
        "weights_file": given.weights,
        "fit": fit,
        "image_size_px": given.image_size_px if fit == "pad" else PLAIN_SIZE_PX,
        "seed": seed,
        "model_dir": folder / ("manifest" if preparing else f"model-{seed}"),
    }
    if not preparing:
        shared |= {"manifest": folder / "manifest", "features": folder / "features"}
    arguments = [str(part) for name, value in (shared | dict(values)).items() for part in (f"--{name}", value)]
    subprocess.run([sys.executable, ROOT / "training_code" / script, *arguments], stdout=sys.stderr, check=True)


def accuracy(right: list[bool]) -> float:
    return sum(right) / len(right)


def mcnemar(won: int, lost: int) -> float:
    """Return the two-sided exact p: how often a fair coin is as uneven as that."""
    tail = sum(math.comb(won + lost, k) for k in range(min(won, lost) + 1)) / 2 ** (won + lost)
    return min(1.0, 2 * tail)


if __name__ == "__main__":
    main()
