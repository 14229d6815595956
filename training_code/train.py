"""Train: a trial of the tuning job, or the final model under the debugger.

The objective is the last `valid_accuracy=` that is printed: that of the best epoch.

By hand, after prepare_dataset.py (--help there):

    python training_code/train.py --dataset photos --manifest prepared --model_dir out --architecture resnet18
    python training_code/train.py --stage final --dataset photos --manifest prepared --model_dir model \\
        --output_data_dir out --inference_code inference_code --architecture resnet18
    python training_code/train.py --stage final --mode frozen_features --features features --weights channel \\
        --weights_file resnet50.safetensors --dataset photos --manifest prepared --model_dir model \\
        --output_data_dir out --inference_code inference_code

The first is a trial: it measures. The others leave the artifact in model/ (SageMaker packs it into model.tar.gz), and
findings.json, training_history.json and the debugger's tensors in out/.
"""

from __future__ import annotations

import json
import platform
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batches import Batches, FeatureBatches, ImageBatches, normalise
from calibration import Calibration, calibrate
from checkpoint import Checkpoints
from data import Squares, decode, images_of, read_manifest, spread_over_classes, to_square
from engine import Hyperparameters, Training, TrainingDiverged, TrainingStopped, final_line, fit
from head import build_head
from job import run
from options import OptionsError, Parser, add_network_options, boolean, check_network_options, number
from precision import choose_device
from source import read_image
from torch import nn

SIGTERM_EXIT = 128 + signal.SIGTERM


@dataclass(frozen=True)
class Options:
    """What train.py is asked to do."""

    stage: str
    mode: str
    dataset: Path | None
    manifest: Path
    features: Path | None
    inference_code: Path | None
    model_dir: Path
    output_data_dir: Path | None
    checkpoint_dir: Path | None
    architecture: str
    image_size_px: int
    weights: str
    weights_file: Path | None
    hidden_units: int
    dropout: float
    learning_rate: float
    eps: float
    weight_decay: float
    batch_size: int
    epochs: int
    seed: int
    debugger: bool
    debugger_save_interval_steps: int
    golden_images: int
    run_id: str | None
    data_digest: str | None
    training_code_digest: str | None
    inference_code_digest: str | None


def read_options(arguments: list[str] | None) -> Options:
    """Read options and SM_* variables. Raises OptionsError."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--stage",
        choices=("trial", "final"),
        default="trial",
        help="trial: measure hyperparameters; final: debug, and write the artifact (default: trial)",
    )
    parser.folder("dataset", "SM_CHANNEL_DATASET", "folder or zip archive of labelled images")
    parser.folder("manifest", "SM_CHANNEL_MANIFEST", "manifest.json or its folder", required=True)
    parser.folder("features", "SM_CHANNEL_FEATURES", "folder of frozen features")
    parser.folder("inference_code", "SM_CHANNEL_INFERENCE_CODE", "serving code: its folder or bundle")
    parser.folder("model_dir", "SM_MODEL_DIR", "where the artifact goes", required=True)
    parser.folder("output_data_dir", "SM_OUTPUT_DATA_DIR", "where findings, history and tensors go")
    parser.folder("checkpoint_dir", "SM_CHECKPOINT_DIR", "where the training is saved and resumed from")
    add_network_options(parser)
    parser.add_argument("--hidden_units", type=number(int, 1, 8192), default=256, help="of the head (default: 256)")
    parser.add_argument("--dropout", type=number(float, 0, 0.95), default=0.0, help="in the head (default: 0)")
    parser.add_argument("--learning_rate", type=number(float, 0, 1000, above=True), default=1e-3, help="AdamW's (1e-3)")
    parser.add_argument("--eps", type=number(float, 0, 1, above=True), default=1e-8, help="AdamW's (default: 1e-8)")
    parser.add_argument("--weight_decay", type=number(float, 0, 100), default=1e-2, help="AdamW's (default: 1e-2)")
    parser.add_argument("--batch_size", type=number(int, 1, 8192), default=64, help="images a step (default: 64)")
    parser.add_argument("--epochs", type=number(int, 1, 1000), default=10, help="passes over the data (default: 10)")
    parser.add_argument("--debugger", type=boolean, default=True, help="hooks and rules in stage final (default: true)")
    parser.add_argument(
        "--debugger_save_interval_steps", type=number(int, 1), default=20, help="steps between saves (default: 20)"
    )
    parser.add_argument("--golden_images", type=number(int, 0, 1000), default=8, help="in the artifact (default: 8)")
    for name in ("run_id", "data_digest", "training_code_digest", "inference_code_digest"):
        parser.add_argument(f"--{name}", help="lineage, for model.json")
    given = vars(parser.parse(arguments))
    check_network_options(given)
    final, frozen = given["stage"] == "final", given["mode"] == "frozen_features"
    needed = {"features": frozen, "dataset": final or not frozen, "inference_code": final, "output_data_dir": final}
    missing = [name for name, is_needed in needed.items() if is_needed and given[name] is None]
    if missing:
        raise OptionsError(f"stage {given['stage']} in mode {given['mode']} needs {', '.join(missing)}")
    return Options(**given)


def train(options: Options) -> None:
    """Train as asked. Raises JobError."""
    manifest = read_manifest(options.manifest)
    if options.data_digest not in (None, manifest["digest"]):
        raise OptionsError(f"data_digest is {options.data_digest}, the manifest's is {manifest['digest']}")
    stopping = _stop_on_sigterm()
    torch.manual_seed(options.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    plan = _plan_frozen(options, manifest) if options.mode == "frozen_features" else _plan_full(options, manifest)
    print(
        f"{options.stage}: {options.architecture}, {options.mode}, weights {options.weights}, "
        f"{plan.batches.train_images} training and {plan.batches.valid_images} validation images, "
        f"{sum(p.numel() for p in plan.trained.parameters()):,} trained parameters, {plan.device}, "
        f"{torch.get_num_threads()} threads",
        flush=True,
    )
    if options.stage == "trial":
        training = _fit(options, plan, None, nn.CrossEntropyLoss(), None, stopping)
        if options.output_data_dir:
            _write_history([options.output_data_dir], training)
    else:
        training = _train_final(options, manifest, plan, stopping)
    if training.best:
        print(final_line(training.best), flush=True)


@dataclass(frozen=True)
class Model:
    """A whole network, and what model.json says about it."""

    network: nn.Module
    head: dict[str, Any]
    preprocessing: dict[str, Any]
    pretrained_sha256: str | None


@dataclass(frozen=True)
class Plan:
    """What is trained on what: the whole network on images, or its head on frozen features."""

    trained: nn.Module
    batches: Batches
    device: torch.device
    assemble: Callable[[], Model]  # the whole network, with what was trained in it


def _plan_full(options: Options, manifest: dict[str, Any]) -> Plan:
    from network import preprocessing_of  # torchvision takes seconds to import: not where only a head trains

    if options.dataset is None:
        raise OptionsError("mode full needs dataset")
    device = choose_device()
    model = _build_model(options, build_head_for(options, manifest))
    preprocessing = preprocessing_of(options.architecture, options.image_size_px)
    squares, labels = {}, {}
    for split in ("train", "valid"):
        entries = images_of(manifest, split)
        squares[split] = Squares(options.dataset, entries, options.image_size_px, torch.get_num_threads())
        labels[split] = [entry["class_index"] for entry in entries]
    batches = ImageBatches(squares["train"], labels["train"], squares["valid"], labels["valid"], preprocessing, device)
    network = model.network.to(device, memory_format=torch.channels_last)
    return Plan(network, batches, device, lambda: model)


def _plan_frozen(options: Options, manifest: dict[str, Any]) -> Plan:
    from features import read_features

    if options.features is None:
        raise OptionsError("mode frozen_features needs features")
    splits = {split: read_features(options.features, manifest, split) for split in ("train", "valid")}
    device = choose_device()
    trained = build_head_for(options, manifest)(manifest["features"]["dimension"]).to(device)
    batches = FeatureBatches(splits["train"], splits["valid"], device)

    def assemble() -> Model:
        model = _build_model(options, lambda _: trained)
        if model.pretrained_sha256 != manifest["features"]["weights_sha256"]:
            raise OptionsError(
                f"the features are of the weights {manifest['features']['weights_sha256'][:12]}, "
                f"the ones given are {str(model.pretrained_sha256)[:12]}: give those that PrepareDataset had"
            )
        return Model(model.network.to(device), model.head, model.preprocessing, model.pretrained_sha256)

    return Plan(trained, batches, device, assemble)


def build_head_for(options: Options, manifest: dict[str, Any]) -> Callable[[int], nn.Module]:
    """Return what builds the head for a number of features."""
    return lambda features: build_head(features, options.hidden_units, len(manifest["classes"]), options.dropout)


def _build_model(options: Options, make_head: Callable[[int], nn.Module]) -> Model:
    from network import (
        build_network,
        digest_weights,
        find_head,
        preprocessing_of,
        read_weights,
        replace_classifier,
    )

    weights = read_weights(options.weights, options.architecture, options.weights_file)
    network = build_network(options.architecture, options.image_size_px, weights)
    head = find_head(network, options.architecture)
    digest = None if weights is None else digest_weights(network.state_dict(), head)
    replace_classifier(network, head, make_head(head.in_features))
    described = {
        "path": head.path,
        "in_features": head.in_features,
        "hidden_units": options.hidden_units,
        "dropout": options.dropout,
    }
    return Model(network, described, preprocessing_of(options.architecture, options.image_size_px), digest)


def _train_final(options: Options, manifest: dict[str, Any], plan: Plan, stopping: Callable[[], bool]) -> Training:
    if options.dataset is None or options.inference_code is None or options.output_data_dir is None:
        raise OptionsError("stage final needs dataset, inference_code and output_data_dir")
    from artifact import check_golden, write_artifact
    from debugging import start_debugging

    folders = [options.output_data_dir, *([options.checkpoint_dir] if options.checkpoint_dir else [])]
    criterion = nn.CrossEntropyLoss()
    debugging = start_debugging(
        options.debugger, plan.trained, criterion, options.output_data_dir, options.debugger_save_interval_steps
    )
    try:
        training = _fit(options, plan, debugging, criterion, manifest["digest"], stopping)
    except TrainingDiverged as diverged:
        debugging.write_findings(folders, diverged)
        raise
    debugging.write_findings(folders)
    _write_history(folders, training)
    calibration = calibrate(*_valid_logits(plan))
    print(
        f"calibrated: temperature={calibration.temperature:.3f} confidence_threshold="
        f"{calibration.confidence_threshold:.3f}, which keeps {calibration.share_kept:.1%} of the validation images, "
        f"{calibration.precision_kept:.1%} of them right",
        flush=True,
    )
    model = plan.assemble()
    golden = spread_over_classes(images_of(manifest, "valid"), options.golden_images)
    document = write_artifact(
        options.model_dir,
        model.network,
        _describe(options, manifest, model, training, calibration),
        options.inference_code,
        options.dataset,
        golden,
    )
    check_golden(document, _answer(model, plan.device, options.dataset, golden))
    return training


def _fit(
    options: Options,
    plan: Plan,
    observer: Any,
    criterion: nn.Module,
    data_digest: str | None,
    stopping: Callable[[], bool],
) -> Training:
    hyperparameters = Hyperparameters(
        options.learning_rate, options.eps, options.weight_decay, options.batch_size, options.epochs
    )
    checkpoints = None
    if options.stage == "final" and options.checkpoint_dir:
        names = ("architecture", "mode", "weights", "hidden_units", "dropout", "image_size_px", "seed")
        identity = {"data": data_digest, **asdict(hyperparameters), **{name: getattr(options, name) for name in names}}
        checkpoints = Checkpoints(options.checkpoint_dir, identity)
    training = fit(
        plan.trained,
        criterion,
        plan.batches,
        hyperparameters,
        options.seed,
        checkpoints=checkpoints,
        observer=observer,
        stopping=stopping,
    )
    if checkpoints:
        checkpoints.clear()
    return training


@torch.inference_mode()
def _valid_logits(plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Return the trained network's logits of the validation split, (N, C), and its labels, (N,)."""
    network = plan.trained.eval()
    answers = [(network(inputs).float().cpu().numpy(), labels.cpu().numpy()) for inputs, labels in plan.batches.valid()]
    return np.concatenate([logits for logits, _ in answers]), np.concatenate([labels for _, labels in answers])


def _describe(
    options: Options, manifest: dict[str, Any], model: Model, training: Training, calibration: Calibration
) -> dict[str, Any]:
    best = training.best
    tuned = ("learning_rate", "eps", "weight_decay", "batch_size", "epochs", "seed", "mode", "weights")
    return {
        "version": 1,
        "run_id": options.run_id,
        "created_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "architecture": options.architecture,
        "head": model.head,
        "classes": manifest["classes"],
        "preprocessing": model.preprocessing,
        "temperature": calibration.temperature,
        "confidence_threshold": calibration.confidence_threshold,
        "hyperparameters": {name: getattr(options, name) for name in tuned},
        "metrics": {
            "valid_accuracy": best.valid_accuracy,
            "valid_loss": best.valid_loss,
            "valid_share_kept": calibration.share_kept,
            "valid_precision_kept": calibration.precision_kept,
            "train_accuracy": best.train_accuracy,
            "train_loss": best.train_loss,
            "epoch": best.epoch,
        }
        if best
        else {},
        "digests": {
            "data": manifest["digest"],
            "training_code": options.training_code_digest,
            "inference_code": options.inference_code_digest,
            "pretrained_weights": model.pretrained_sha256,
        },
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
    }


def _answer(model: Model, device: torch.device, dataset: Path, golden: list[dict[str, Any]]) -> np.ndarray:
    """Return the trained network's own answers to the golden images, (N, C)."""
    size = model.preprocessing["image_size_px"]
    squares = [to_square(decode(read_image(dataset, entry), at_least_px=size), size, size) for entry in golden]
    with torch.inference_mode():
        answers = [model.network.eval()(normalise(square[None], model.preprocessing, device)) for square in squares]
    return np.concatenate([answer.cpu().numpy() for answer in answers]) if answers else np.empty((0, 0))


def _write_history(folders: list[Path], training: Training) -> None:
    best = training.best.epoch if training.best else None
    document = {"version": 1, "best_epoch": best, "epochs": [asdict(epoch) for epoch in training.history]}
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "training_history.json").write_text(json.dumps(document, indent=1) + "\n")


def _stop_on_sigterm() -> Callable[[], bool]:
    """Return whether SIGTERM came: SageMaker sends it 120 s before it takes a spot instance, or to stop a job."""
    received: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    return lambda: bool(received)


def main() -> None:
    """Train; leave with SIGTERM's exit code if it was stopped."""
    try:
        train(read_options(None))
    except TrainingStopped as stopped:
        print(stopped, flush=True)
        sys.exit(SIGTERM_EXIT)


if __name__ == "__main__":
    run(main)
