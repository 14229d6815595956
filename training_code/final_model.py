"""The final model: trained under the debugger, calibrated, written as an artifact and held to its own answers."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from artifact import check_golden, write_artifact
from batches import normalise
from calibration import Calibration, calibrate
from data import decode, images_of, spread_over_classes, to_square
from debugging import start_debugging
from engine import Surroundings, TrainingDoomed, fit
from history import Training
from options import OptionsError
from profiler import Profiler
from recipe import Phase
from source import read_image
from work import Model, Work, criterion_of

if TYPE_CHECKING:
    from train import Options


def train_final(
    options: Options, manifest: dict[str, Any], work: Work, phase: Phase, around: Surroundings, training: Training
) -> None:
    """Train the last phase under the debugger; leave findings.json and the artifact. Raises JobError."""
    if options.dataset is None or options.inference_code is None or options.output_data_dir is None:
        raise OptionsError("stage final needs dataset, inference_code and output_data_dir")
    folders = [options.output_data_dir, *([options.checkpoint_dir] if options.checkpoint_dir else [])]
    criterion = criterion_of(options, manifest, phase, work.device)
    debugging = start_debugging(
        options.debugger,
        folders if around.processes.is_first else [],
        options.debugger_save_interval_steps,
        options.debugger_stop_on.split(","),
    )
    profiler = Profiler(debugging) if options.profiler and around.processes.is_first else None
    watched = Surroundings(
        around.checkpoints, profiler or debugging, around.stopping, around.processes, around.precision
    )
    try:
        fit(work.trained, criterion, work.batches, phase, work.groups(phase), options.seed, watched, training)
    except TrainingDoomed as doomed:
        debugging.write_findings(doomed)
        raise
    finally:
        if profiler:
            profiler.write_profile(folders)
    debugging.write_findings()
    calibration = calibrate(*_valid_logits(work))
    print(
        f"calibrated: temperature={calibration.temperature:.3f} confidence_threshold="
        f"{calibration.confidence_threshold:.3f}, which keeps {calibration.share_kept:.1%} of the validation images, "
        f"{calibration.precision_kept:.1%} of them right",
        flush=True,
    )
    model = work.assemble()
    golden = spread_over_classes(images_of(manifest, "valid"), options.golden_images)
    document = write_artifact(
        options.model_dir,
        model.network,
        _describe(options, manifest, model, training, calibration),
        options.inference_code,
        options.dataset,
        golden,
        options.serving_wheels,
    )
    check_golden(document, _answer(model, work.device, options.dataset, golden))


@torch.inference_mode()
def _valid_logits(work: Work) -> tuple[np.ndarray, np.ndarray]:
    """Return the trained network's logits of the validation split, (N, C), and its labels, (N,)."""
    network = work.trained.eval()
    everything = range(work.batches.valid_images)
    answers = [
        (network(inputs).float().cpu().numpy(), labels.cpu().numpy())
        for inputs, labels in work.batches.valid(everything)
    ]
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
    size = model.preprocessing["resize_px"]
    pictures = [decode(read_image(dataset, entry), at_least_px=size) for entry in golden]
    seen = [to_square(picture, model.preprocessing) for picture in pictures]
    with torch.inference_mode():
        answers = [model.network.eval()(normalise(square[None], model.preprocessing, device)) for square in seen]
    return np.concatenate([answer.cpu().numpy() for answer in answers]) if answers else np.empty((0, 0))
