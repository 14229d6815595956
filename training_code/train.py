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

import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from checkpoint import Checkpoints
from data import read_manifest
from distributed import Processes, join
from engine import NoObserver, Observer, Surroundings, TrainingStopped, fit
from history import Training, final_line, write_history
from job import check_instances, run
from options import OptionsError, Parser, add_network_options, boolean, check_network_options, number
from recipe import Phase, Tuned, fine_tune_phase, head_phase, values_of, whole_phase
from work import Work, criterion_of, describe_decisions, fine_tuning, on_features, on_images

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
    serving_wheels: Path | None
    model_dir: Path
    output_data_dir: Path | None
    checkpoint_dir: Path | None
    architecture: str
    image_size_px: int
    fit: str
    weights: str
    weights_file: Path | None
    hidden_units: int
    dropout: float
    learning_rate: float
    eps: float
    weight_decay: float
    batch_size: int
    epochs: int
    head_epochs: int
    unfreeze: str
    augmentation: str
    mirror: str
    class_weights: bool
    early_stopping_epochs: int
    tuned: str
    seed: int
    debugger: bool
    debugger_save_interval_steps: int
    debugger_stop_on: str
    profiler: bool
    profiler_window_steps: int
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
    parser.folder("serving_wheels", "SM_CHANNEL_SERVING_WHEELS", "what an endpoint without a network installs from")
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
    parser.add_argument("--epochs", type=number(int, 1, 1000), default=10, help="of the last phase (default: 10)")
    parser.add_argument(
        "--head_epochs",
        type=number(int, 1, 1000),
        default=10,
        help="of the head before fine-tuning: as many as the trials had (default: 10)",
    )
    parser.add_argument(
        "--unfreeze",
        choices=("head", "last_stage", "all"),
        default="head",
        help="what stage final fine-tunes after the head, in mode frozen_features (default: head, nothing)",
    )
    parser.add_argument(
        "--augmentation", choices=("gentle", "cut"), default="gentle", help="of training images (default: gentle)"
    )
    parser.add_argument(
        "--mirror",
        choices=("auto", "true", "false"),
        default="auto",
        help="mirror training images; auto: where the head knows mirrored validation images as well (default: auto)",
    )
    parser.add_argument(
        "--class_weights", type=boolean, default=True, help="weigh rare classes up, if they are rare (default: true)"
    )
    parser.add_argument(
        "--early_stopping_epochs",
        type=number(int, 0, 1000),
        default=0,
        help="epochs without a better one after which the last phase ends; 0: never (default: 0)",
    )
    parser.add_argument("--tuned", default="", help="which options a tuning job has chosen, separated by commas")
    parser.add_argument("--debugger", type=boolean, default=True, help="hooks and rules in stage final (default: true)")
    parser.add_argument(
        "--debugger_save_interval_steps",
        type=number(int, 0),
        default=0,
        help="steps between saves; 0: as many as there are of 25 saves a phase (default: 0)",
    )
    parser.add_argument(
        "--debugger_stop_on", default="none", help="rules, with commas, whose issue stops the training (default: none)"
    )
    parser.add_argument("--profiler", type=boolean, default=True, help="profile.json in stage final (default: true)")
    parser.add_argument(
        "--profiler_window_steps",
        type=number(int, 0, 100),
        default=3,
        help="steps of the last phase under torch.profiler; 0: none (default: 3)",
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
    smallest = min(phase.batch_size for phase in phases)
    if smallest < processes.number:
        raise OptionsError(
            f"batch_size is {smallest}, but {processes.number} processes share each batch: "
            f"choose batch sizes of at least {processes.number}, or fewer instances"
        )
    checkpoints = _checkpoints(options, manifest, phases[-1])
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
    if final and processes.is_first:
        from final_model import leave_model

        leave_model(options, manifest, work, training)
    if processes.is_first:
        folders = [folder for folder in (options.output_data_dir, options.checkpoint_dir if final else None) if folder]
        decisions = describe_decisions(options, manifest, work, processes)
        write_history(folders, options.stage, training, decisions, values_of(phases, options.tuned.split(",")))
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


def _checkpoints(options: Options, manifest: dict[str, Any], phase: Phase) -> Checkpoints | None:
    """Return the final training's checkpoints; only the same work on the same data takes them up."""
    if options.stage != "final" or options.checkpoint_dir is None:
        return None
    names = ("architecture", "mode", "weights", "hidden_units", "dropout", "image_size_px", "fit", "unfreeze", "seed")
    also = ("augmentation", "mirror", "class_weights", "head_epochs", "learning_rate")
    described = {name: value for name, value in asdict(phase).items() if name != "rules"}
    described["sizes_px"] = list(phase.sizes_px)
    identity = {"data": manifest["digest"], **described, **{name: getattr(options, name) for name in (*names, *also)}}
    return Checkpoints(options.checkpoint_dir, identity)


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
