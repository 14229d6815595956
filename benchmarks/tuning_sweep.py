"""A sweep of real trial jobs on a local cloud, against one trial of the usual script, openly multiplied.

    python -m benchmarks.tuning_sweep --dataset photos --weights tf_efficientnet_lite0.safetensors

Runs with the command's own Python. The sweep is the run's PrepareDataset and TuneHyperparameters, every start-up
included; the usual script runs the frozen backbone over the training images in each epoch, at float32, with two threads
that decode. Of it, --baseline-epochs epochs are run, and multiplied by the epochs of a trial and by the trials. Prints
one JSON document.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from localcloud.containers.environments import Environments

ROOT = Path(__file__).parents[1]
EPOCHS = 10
USUAL = """
import json, sys, time, torch
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from PIL import Image
from benchmarks.photographs import network_of, options
parser = options(None)
parser.add_argument("--epochs", type=int)
parser.add_argument("--baseline-epochs", type=int)
given = parser.parse_args()
started = time.time()
torch.set_num_threads(given.threads)
from network import find_head, replace_classifier
from head import build_head
backbone = network_of(given).eval()
place = find_head(backbone, given.architecture)
replace_classifier(backbone, place, torch.nn.Identity())
paths = {split: sorted((given.dataset / split).rglob("*.jpg")) for split in ("train", "valid")}
names = sorted({path.parent.name for path in paths["train"]})
head = build_head(place.in_features, 256, len(names), 0.0)
optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
pool = ThreadPoolExecutor(2)

def load(path):
    return np.array(Image.open(path).convert("RGB").resize((224, 224)))

def see(chosen):
    images = torch.from_numpy(np.stack(list(pool.map(load, chosen)))).permute(0, 3, 1, 2).float().div(127.5).sub(1)
    with torch.no_grad():
        return backbone(images), torch.tensor([names.index(path.parent.name) for path in chosen])

def step(seen, labels):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(head(seen), labels).backward()
    optimizer.step()

for epoch in range(given.baseline_epochs):
    order, kept = torch.randperm(len(paths["train"])).tolist(), []
    for start in range(0, len(order), 64):
        kept.append(see([paths["train"][index] for index in order[start : start + 64]]))
        step(*kept[-1])
seconds = time.time() - started
seen, labels = (torch.cat(parts) for parts in zip(*kept))
for epoch in range(given.baseline_epochs, given.epochs):  # a frozen backbone says the same again
    for chosen in torch.randperm(len(seen)).split(64):
        step(seen[chosen], labels[chosen])
seen, labels = see(paths["valid"])
print(json.dumps([seconds, (head(seen).argmax(1) == labels).float().mean().item()]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--architecture", default="timm:tf_efficientnet_lite0")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--baseline-epochs", type=int, default=1)
    given = parser.parse_args()
    seconds, usual_accuracy = usual_trial(given)
    one = seconds * EPOCHS / given.baseline_epochs
    summary = sweep(given)
    states = {state["name"]: state["seconds"] for state in summary["states"]}
    ours = states["PrepareDataset"] + states["TuneHyperparameters"]
    found = {
        "trials": len(summary["trials"]),
        "seconds": ours,
        "prepare_seconds": states["PrepareDataset"],
        "valid_accuracy": max(trial["objective"] or 0.0 for trial in summary["trials"]),
        "usual_valid_accuracy": usual_accuracy,
        "one_usual_trial_seconds": one,
        "usual_seconds_multiplied": one * given.trials,
        "ratio": one * given.trials / ours,
    }
    print(json.dumps(found, indent=2))


def usual_trial(given: argparse.Namespace) -> tuple[float, float]:
    """Return the seconds of --baseline-epochs epochs of the usual script, and what all epochs come to on validation."""
    requirements = ROOT / "training_code" / "requirements.txt"
    python = Environments().with_requirements("pytorch", requirements, lambda line: print(line, file=sys.stderr)).python
    command = [python, "-c", USUAL, "--dataset", given.dataset, "--weights", given.weights]
    command += ["--architecture", given.architecture]
    command += ["--epochs", str(EPOCHS), "--baseline-epochs", str(given.baseline_epochs)]
    seconds, accuracy = json.loads(
        subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout
    )
    return seconds, accuracy


def sweep(given: argparse.Namespace) -> dict[str, Any]:
    """Return the summary of a run on a cloud of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"KELPIE_HOME": home}
        settings = {
            "model.architecture": given.architecture,
            "model.weights": str(given.weights.resolve()),
            "tuning.max_jobs": str(given.trials),
            "tuning.max_parallel_jobs": "2",
            "tuning.epochs": str(EPOCHS),
            # What follows is not measured, and made short: the gate lets no model pass.
            "training.unfreeze": "head",
            "training.epochs": "1",
            "serving.variant": "float32",
            "gate.min_accuracy": "1",
        }
        chosen = [f"--set={key}={value}" for key, value in settings.items()]
        command = [sys.executable, "-m", "kelpie"]
        subprocess.run([*command, "up", "--port", port], env=environment, stdout=sys.stderr, check=True)
        try:
            run = [*command, "run", str(given.dataset), "--json", *chosen]
            done = subprocess.run(run, env=environment, stdout=subprocess.PIPE, text=True, check=False)
            return dict(json.loads(done.stdout))
        finally:
            subprocess.run([*command, "down"], env=environment, stdout=sys.stderr, check=False)


if __name__ == "__main__":
    main()
