"""Train: a trial of the tuning job, or the final model under the debugger.

The objective is the last `valid_accuracy=` that is printed: that of the best epoch.

By hand, after prepare_dataset.py (--help there):

    python training_code/train.py --dataset photos --manifest prepared --model_dir out --architecture resnet18
    python training_code/train.py --stage final --dataset photos --manifest prepared --model_dir model \\
        --output_data_dir out --inference_code inference_code --architecture resnet18
    python training_code/train.py --stage final --mode frozen_features --features features --weights channel \\
        --weights_file resnet50.safetensors --dataset photos --manifest prepared --model_dir model \\
        --output_data_dir out --inference_code inference_code --unfreeze all
    torchrun --nproc_per_node 2 training_code/train.py ...

The first is a trial: it measures. The others leave the artifact in model/ (SageMaker packs it into model.tar.gz), and
findings.json, training_history.json and the debugger's tensors in out/. The third trains the head on the features, then
fine-tunes the network. Under torchrun several processes share the work of each step.
"""

from __future__ import annotations

import hashlib
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import torch
from checkpoint import Checkpoints
from data import read_manifest
from distributed import Processes, join
from engine import Surroundings, TrainingStopped, fit
from history import Training, final_line, write_history
from job import check_instances, run
from observer import NoObserver, Observer
from options import OptionsError
from recipe import Phase, Tuned, fine_tune_phase, head_phase, scaled, values_of, whole_phase
from train_options import Options, read_options
from work import Work, criterion_of, describe_decisions, fine_tuning, on_features, on_images

SIGTERM_EXIT = 128 + signal.SIGTERM


def train(options: Options) -> None:
    """Train as asked. Raises JobError."""
    manifest = read_manifest(options.manifest)
    if options.data_digest not in (None, manifest["digest"]):
        raise OptionsError(f"data_digest is {options.data_digest}, the manifest's is {manifest['digest']}")
    check_instances()
    processes = join()
    try:
        torch.manual_seed(options.seed)
        # Not use_deterministic_algorithms, which imports PyTorch's compiler to tell it as well: two seconds of a trial.
        torch.set_deterministic_debug_mode("warn")
        # Which would fill all new memory with NaN, a fifth of a step's time, for what reads it before it is written.
        torch.utils.deterministic.fill_uninitialized_memory = False
        training = _train(options, manifest, processes, _stop_on_sigterm())
        if training.best and processes.is_first:
            print(final_line(training.best), flush=True)
    finally:
        processes.leave()


def _train(options: Options, manifest: dict[str, Any], processes: Processes, stopping: Callable[[], bool]) -> Training:
    tuned = Tuned(options.learning_rate, options.eps, options.weight_decay, options.batch_size)
    frozen, final = options.mode == "frozen_features", options.stage == "final"
    patience = options.early_stopping_epochs
    if not frozen:
        phases = [whole_phase(tuned, options.epochs, patience, options.image_size_px, options.weights != "none")]
    elif final and options.unfreeze != "head":
        phases = [
            head_phase(tuned, options.head_epochs),
            fine_tune_phase(tuned, options.epochs, patience, options.image_size_px),
        ]
    else:
        phases = [head_phase(tuned, options.epochs, patience)]
    phases = [scaled(phase, options.learning_rate_scale) for phase in phases]
    smallest = min(phase.batch_size for phase in phases)
    if smallest < processes.number:
        raise OptionsError(
            f"batch_size is {smallest}, but {processes.number} processes share each batch: "
            f"choose batch sizes of at least {processes.number}, or fewer instances"
        )
    checkpoints = _checkpoints(options, manifest, phases)
    training = Training()
    with _observer(options, processes) as observer:
        work = on_features(options, manifest) if frozen else on_images(options, manifest)
        for number, phase in enumerate(phases):
            if number:
                work = fine_tuning(options, manifest, work)
            last = phase is phases[-1]
            _announce(options, work, phase, processes)
            fit(
                work.trained,
                criterion_of(options, manifest, phase, work.device),
                work.batches,
                phase,
                work.groups(phase),
                options.seed,
                Surroundings(checkpoints if last else None, observer, stopping, processes, work.precision),
                training,
                epochs_after=sum(later.epochs for later in phases[number + 1 :]),
            )
    if processes.is_first:
        folders = [folder for folder in (options.output_data_dir, options.checkpoint_dir if final else None) if folder]
        decisions = describe_decisions(options, manifest, work, processes)
        write_history(folders, options.stage, training, decisions, values_of(phases, options.tuned.split(",")))
        if final:
            from final_model import leave_model

            leave_model(options, manifest, work, training)
        if checkpoints:
            checkpoints.clear()
    return training


def _observer(options: Options, processes: Processes) -> AbstractContextManager[Observer]:
    """Return what watches the training: nothing in a trial, nor in all processes but the first; their weights agree."""
    if options.stage != "final" or not processes.is_first:
        return nullcontext(NoObserver())
    from final_model import watched

    return watched(options)


def _announce(options: Options, work: Work, phase: Phase, processes: Processes) -> None:
    if not processes.is_first:
        return
    trained = sum(parameter.numel() for parameter in work.trained.parameters() if parameter.requires_grad)
    print(
        f"{options.stage}, {phase.name}: {options.architecture}, weights {options.weights}, "
        f"{work.batches.train_images} training and {work.batches.valid_images} validation images, "
        f"{trained:,} trained parameters, {work.device}, {str(work.precision).removeprefix('torch.')}, "
        f"{processes.number} processes of {torch.get_num_threads()} threads, learning_rate {phase.learning_rate:.2e}, "
        f"batch_size {phase.batch_size}" + (", mirrored at random" if work.mirror else ""),
        flush=True,
    )


def _checkpoints(options: Options, manifest: dict[str, Any], phases: list[Phase]) -> Checkpoints | None:
    """Return the final training's checkpoints; only the same work on the same data takes them up."""
    if options.stage != "final" or options.checkpoint_dir is None:
        return None
    names = ("architecture", "mode", "weights", "hidden_units", "dropout", "image_size_px", "fit", "unfreeze", "seed")
    also = ("augmentation", "mirror", "class_weights")
    file = options.weights_file
    identity = {
        "data": manifest["digest"],
        "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest() if file else None,
        "phases": [asdict(phase) for phase in phases],
        **{name: getattr(options, name) for name in (*names, *also)},
    }
    return Checkpoints(options.checkpoint_dir, identity)


def _stop_on_sigterm() -> Callable[[], bool]:
    """Return whether SIGTERM came: SageMaker sends it 120 s before it takes a spot instance, or to stop a job."""
    received: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    return lambda: bool(received)


def main() -> None:
    """Train; leave with SIGTERM's exit code if it was stopped."""
    try:
        train(read_options(None, __doc__))
    except TrainingStopped as stopped:
        print(stopped, flush=True)
        sys.exit(SIGTERM_EXIT)


if __name__ == "__main__":
    run(main)
