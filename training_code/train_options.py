"""What train.py can be told: options, folders from SM_* variables, and which of them go together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from options import OptionsError, Parser, add_network_options, boolean, check_network_options, number, rule_parameters


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
    learning_rate_scale: float
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
    debugger_parameters: dict[str, dict[str, float | bool]]
    profiler: bool
    profiler_window_steps: int
    golden_images: int
    run_id: str | None
    data_digest: str | None
    training_code_digest: str | None
    inference_code_digest: str | None


def read_options(arguments: list[str] | None, description: str | None = None) -> Options:
    """Read options and SM_* variables; description: of the script, for --help. Raises OptionsError."""
    parser = Parser(description)
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
    parser.add_argument(
        "--learning_rate_scale",
        type=number(float, 0, above=True),
        default=1.0,
        help="multiplies the learning rate of every phase, after all rules (default: 1)",
    )
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
    parser.add_argument(
        "--debugger_parameters",
        type=rule_parameters,
        default={},
        help="of rules, Rule.parameter=value with commas, instead of their defaults (default: none)",
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
