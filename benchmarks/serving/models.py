"""The models that are served: trained, and then optimised, by the very jobs of a run, in their own environments.

ResNet-50 gets random weights where none can be had: they cost what others cost. Its photographs are generated then.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcloud.containers.environments import Environments

ROOT = Path(__file__).parents[2]
TRAINING, SERVING = ROOT / "training_code", ROOT / "inference_code"
RANDOM_WEIGHTS = """
import sys, torch, torchvision
from safetensors.torch import save_file
torch.manual_seed(0)
network = torchvision.models.get_model(sys.argv[1], weights=None)
for module in network.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
        module.momentum = 1.0
with torch.no_grad():  # without statistics all pictures would have the same answer
    network.train()(torch.randn(8, 3, 224, 224))
save_file(network.state_dict(), sys.argv[2])
"""
GENERATED = """
import sys
from pathlib import Path
from benchmarks.photographs import generate
generate(Path(sys.argv[1]))
"""


@dataclass(frozen=True)
class Trained:
    """A trained artifact, and what OptimizeModel is given with it."""

    folder: Path
    dataset: Path

    @property
    def artifact(self) -> Path:
        return self.folder / "model"

    @property
    def images(self) -> list[Path]:
        """The photographs that nothing was trained or chosen on."""
        return sorted(path for path in (self.dataset / "test").rglob("*") if path.suffix.lower() == ".jpg")


class Models:
    """Makes models below a folder, or takes those that an earlier call left there."""

    def __init__(self, folder: Path, say: Callable[[str], None]):
        self._folder, self._say, self._environments = folder, say, Environments()
        requirements = TRAINING / "requirements.txt"
        self.training = self._environments.with_requirements("pytorch", requirements, say).python

    def serving(self, artifact: Path) -> Path:
        """Return the Python that serves an artifact."""
        return self._environments.with_requirements("ray", artifact / "code" / "requirements.txt", self._say).python

    def train(self, architecture: str, weights: Path | None, dataset: Path | None, fit: str) -> Trained:
        """Return the model with a head of its own on frozen features, of generated photographs without a data set."""
        folder = self._folder / architecture.replace(":", "-")
        folder.mkdir(parents=True, exist_ok=True)
        trained = Trained(folder, dataset or self._generated())
        if (trained.artifact / "model.json").is_file():
            return trained
        self._say(f"{architecture}: a head on frozen features")
        if weights is None:
            weights = folder / "random.safetensors"
            self._run([self.training, "-c", RANDOM_WEIGHTS, architecture, weights])
        shared = {
            "mode": "frozen_features",
            "dataset": trained.dataset,
            "architecture": architecture,
            "weights": "channel",
            "weights_file": weights,
            "fit": fit,
        }
        prepared = {"checkpoint_dir": folder / "features", "model_dir": folder / "manifest"}
        self._job("prepare_dataset.py", shared | prepared)
        final = {
            "stage": "final",
            "manifest": folder / "manifest",
            "features": folder / "features",
            "model_dir": trained.artifact,
            "output_data_dir": folder / "output",
            "inference_code": SERVING,
            "debugger": "false",
            "profiler": "false",
            "learning_rate": 3e-3,
            "epochs": 15,
        }
        self._job("train.py", shared | final)
        return trained

    def optimise(self, trained: Trained, variant: str, split: str = "valid") -> tuple[Path, dict[str, Any]]:
        """Return the artifact with its variant, and variants.json. split: what the variants are scored on."""
        opt_ml = trained.folder / f"optimised-{variant}-{split}"
        table = opt_ml / "checkpoints" / "variants.json"
        if not table.is_file():
            self._say(f"{trained.folder.name}: OptimizeModel, {variant}, scored on {split}")
            shutil.rmtree(opt_ml, ignore_errors=True)  # what was interrupted
            configuration = opt_ml / "input" / "config" / "hyperparameters.json"
            configuration.parent.mkdir(parents=True)
            configuration.write_text(json.dumps({"variant": variant, "max_accuracy_loss": "0.003"}))
            artifact, manifest = opt_ml / "artifact", opt_ml / "manifest"
            shutil.copytree(trained.artifact, artifact)
            manifest.mkdir()
            (manifest / "manifest.json").write_text(json.dumps(_scored_on(split, trained.folder / "manifest")))
            script = artifact / "code" / "run_optimize.py"
            self._run([self.serving(artifact), script, opt_ml, artifact, trained.dataset, manifest])
        return opt_ml / "model", json.loads(table.read_bytes())

    def _generated(self) -> Path:
        folder = self._folder / "photographs"
        if not folder.is_dir():
            self._run([self.training, "-c", GENERATED, folder])
        return folder

    def _job(self, script: str, options: dict[str, Any]) -> None:
        arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        self._run([self.training, TRAINING / script, *arguments])

    def _run(self, command: list[Any]) -> None:
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}  # as the local cloud's containers have it
        words = [str(part) for part in command]
        subprocess.run(words, cwd=ROOT, env=environment, stdout=sys.stderr, check=True)


def _scored_on(split: str, folder: Path) -> dict[str, Any]:
    """Return the manifest with a split in the place of the validation split, which OptimizeModel scores on."""
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    if split != "valid":
        kept = [image for image in manifest["images"] if image["split"] != "valid"]
        manifest["images"] = [image | ({"split": "valid"} if image["split"] == split else {}) for image in kept]
    return manifest
