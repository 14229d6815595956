"""The final model: trained under the debugger, calibrated, written as an artifact and held to its own answers."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from artifact import check_golden, write_artifact
from batches import normalise
from calibration import Calibration, calibrate
from data import decode, images_of, spread_over_classes, to_square
from debugging import start_debugging
from history import Training
from observer import Observer
from options import OptionsError
from profiler import Profiler
from source import read_image
from train_options import Options
from work import Model, Work


@contextmanager
def watched(options: Options) -> Iterator[Observer]:
    """Watch a final training, all its phases; leave findings.json and profile.json whatever it comes to.

    SIGTERM, out of memory, data that cannot be read: what was found until then is left too. A training that is taken up
    again writes its own.
    """
    given = (options.output_data_dir, options.checkpoint_dir)
    folders = [folder for folder in given if folder]
    stopping = options.debugger_stop_on.split(",")

    def leave_profile() -> None:
        if profiler:
            profiler.write_profile(folders)

    interval = options.debugger_save_interval_steps
    debugging = start_debugging(
        options.debugger, folders, interval, stopping, options.debugger_parameters, before_exit=leave_profile
    )
    profiler = Profiler(debugging, options.profiler_window_steps) if options.profiler else None
    try:
        yield profiler or debugging
    except BaseException as ended:
        leave_profile()
        try:
            debugging.write_findings(ended)
        except Exception as trouble:  # noqa: BLE001 - why the training ended is what matters
            print(f"debugger: no findings: {type(trouble).__name__}: {trouble}", flush=True)
        raise
    leave_profile()
    debugging.write_findings()


def leave_model(options: Options, manifest: dict[str, Any], work: Work, training: Training) -> None:
    """Calibrate what was trained, and leave the artifact. Raises JobError."""
    if options.dataset is None or options.inference_code is None:
        raise OptionsError("stage final needs dataset and inference_code")
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
    rates = ("learning_rate", "learning_rate_scale")
    given = (*rates, "eps", "weight_decay", "batch_size", "epochs", "seed", "mode", "weights")
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
        "hyperparameters": {name: getattr(options, name) for name in given},
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
