"""EvaluateModel: score a split with the artifact's own code, the code that will serve it.

By hand, after train.py's final stage (--help there):

    python training_code/evaluate.py --dataset photos --manifest prepared --model model --model_dir scored

model is the artifact's folder, or model.tar.gz, or the folder that holds it. It leaves evaluation.json,
predictions.csv, samples/ and mistakes/ (thumbnails of the worst) in scored/.
"""

from __future__ import annotations

import csv
import hashlib
import random
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from artifact import inference_module, unpack_artifact
from calibration import softmax
from data import DatasetError, images_of, read_manifest, spread_over_classes
from documents import read_document, write_document
from engine_packages import engine_packages
from job import run
from measures import measure, measure_confidence
from options import OptionsError, Parser, number
from source import read_file
from thumbnails import write_thumbnail

SAMPLES = 10  # spread over the classes
DRAWN_SAMPLES = 16  # by lot, from the others
MOST_MISTAKES = 24
PREDICTIONS_FILE = "predictions.csv"


@dataclass(frozen=True)
class Options:
    """What evaluate.py is asked to do."""

    dataset: Path
    manifest: Path
    model: Path
    model_dir: Path
    split: str
    batch_size: int
    champion: Path | None
    champion_manifest: Path | None


def read_options(arguments: list[str] | None) -> Options:
    """Read options and SM_* variables. Raises OptionsError."""
    parser = Parser(__doc__)
    parser.folder("dataset", "SM_CHANNEL_DATASET", "folder or zip archive of labelled images", required=True)
    parser.folder("manifest", "SM_CHANNEL_MANIFEST", "manifest.json or its folder", required=True)
    parser.folder("model", "SM_CHANNEL_MODEL", "model.tar.gz, its folder, or the artifact unpacked", required=True)
    parser.folder("model_dir", "SM_MODEL_DIR", "where evaluation.json and predictions.csv go", required=True)
    parser.folder("champion", "SM_CHANNEL_CHAMPION", "the artifact that serves now, to compare with", required=False)
    parser.folder(
        "champion_manifest", "SM_CHANNEL_CHAMPION_MANIFEST", "what the champion was trained on", required=False
    )
    parser.add_argument("--split", choices=("valid", "test"), default="test", help="what to score (default: test)")
    parser.add_argument("--batch_size", type=number(int, 1, 8192), default=32, help="images at a time (default: 32)")
    return Options(**vars(parser.parse(arguments)))


def evaluate(options: Options) -> None:
    """Score the split; write evaluation.json and predictions.csv. Raises JobError."""
    manifest = read_manifest(options.manifest)
    entries = images_of(manifest, options.split)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.model
        if not (folder / "model.json").is_file():
            folder = Path(temporary)
            unpack_artifact(options.model, folder)
        description = read_document(folder / "model.json", "model")
        if description["classes"] != manifest["classes"]:
            raise OptionsError("the model knows other classes than the data set: train it on this data set")
        with engine_packages(folder), inference_module(folder) as inference:
            model = inference.model_fn(folder)
            logits = score(inference, model, options.dataset, entries, options.batch_size)
            probabilities = softmax(logits / description["temperature"])
            examples = choose_examples(probabilities, entries, manifest["classes"], lot=description["weights_sha256"])
            if model.serving["variant"] != "float32":
                fallback = inference.float32_model(folder, description)
                again = score(inference, fallback, options.dataset, examples["samples"], options.batch_size)
                _add_float32(examples["samples"], softmax(again / description["temperature"]), manifest["classes"])
        table = folder / "variants.json"
        variants = {"variants": read_document(table, "variants")} if table.is_file() else {}
    labels = np.array([entry["class_index"] for entry in entries])
    champion = None
    if options.champion and options.champion_manifest:
        known = {
            entry["sha256"] for entry in read_manifest(options.champion_manifest)["images"] if entry["split"] != "test"
        }
        predicted = probabilities.argmax(axis=1)
        champion = compare(options.champion, known, options, entries, labels, predicted, manifest["classes"])
    document = {
        "version": 1,
        "run_id": description["run_id"],
        "split": options.split,
        "data_digest": manifest["digest"],
        "weights_sha256": description["weights_sha256"],
        "variant": model.serving["variant"],
        "predictions_file": PREDICTIONS_FILE,
        **measure(probabilities, labels, manifest["classes"]),
        **measure_confidence(logits, labels, description["temperature"], description["confidence_threshold"]),
        **examples,
        "champion": champion,
        **variants,
    }
    write_document(options.model_dir / "evaluation.json", document, "evaluation")
    for mistake in document["mistakes"]:
        write_thumbnail(options.model_dir / mistake["thumbnail"], read_file(options.dataset, mistake["path"]))
    for sample in document["samples"]:
        path = options.model_dir / sample["file"]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(read_file(options.dataset, sample["path"]))
    _write_predictions(options.model_dir / PREDICTIONS_FILE, probabilities, entries, manifest["classes"])
    print(
        f"{options.split}: accuracy={document['accuracy']:.4f} macro_f1={document['macro_f1']:.4f} "
        f"calibration_error={document['calibration_error']:.4f} on {len(entries)} images by {document['variant']}",
        flush=True,
    )


def compare(
    archive: Path,
    known: set[str],
    options: Options,
    entries: Sequence[dict[str, Any]],
    labels: np.ndarray,
    predicted: np.ndarray,
    classes: Sequence[str],
) -> dict[str, Any]:
    """Return evaluation.json's champion: who is right on the images that the champion was not trained on.

    The champion answers by its own serving code, of its own artifact. known: digests of what it was trained and chosen
    on. labels, predicted: (N,), class indices.
    """
    with tempfile.TemporaryDirectory() as folder:
        unpack_artifact(archive, Path(folder))
        description = read_document(Path(folder) / "model.json", "model")
        fresh = np.array([entry["sha256"] not in known for entry in entries])
        right, wrong = predicted[fresh] == labels[fresh], predicted[fresh] != labels[fresh]
        champion_right = np.zeros(len(right), dtype=bool)
        same_classes = description["classes"] == list(classes)
        if same_classes and fresh.any():
            unseen = [entry for entry, is_fresh in zip(entries, fresh, strict=True) if is_fresh]
            with engine_packages(Path(folder)), inference_module(Path(folder)) as inference:
                model = inference.model_fn(Path(folder))
                logits = score(inference, model, options.dataset, unseen, options.batch_size)
            champion_right = logits.argmax(axis=1) == labels[fresh]
    return {
        "run_id": description["run_id"],
        "weights_sha256": description["weights_sha256"],
        "same_classes": same_classes,
        "images": int(fresh.sum()),
        "left_out": int((~fresh).sum()),
        "wins": int((right & ~champion_right).sum()) if same_classes else 0,
        "losses": int((wrong & champion_right).sum()) if same_classes else 0,
    }


def score(
    inference: ModuleType, model: Any, dataset: Path, entries: Sequence[dict[str, Any]], batch_size: int
) -> np.ndarray:
    """Return the serving code's logits of the entries, (N, C) float64. Raises DatasetError if an image has changed.

    Each worker decodes and computes its own batches on one thread: so decoding takes part in the parallelism.
    """

    def score_batch(batch: Sequence[dict[str, Any]]) -> np.ndarray:
        torch.set_num_threads(1)
        contents = [_read(dataset, entry) for entry in batch]
        logits: np.ndarray = inference.predict_logits(model, contents)
        return logits.astype(np.float64)

    batches = [entries[start : start + batch_size] for start in range(0, len(entries), batch_size)]
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(threads) as pool:
            return np.concatenate(list(pool.map(score_batch, batches)))
    finally:
        torch.set_num_threads(threads)


def choose_examples(
    probabilities: np.ndarray, entries: Sequence[dict[str, Any]], classes: Sequence[str], lot: str
) -> dict[str, Any]:
    """Return evaluation.json's samples, and the mistakes that were made most confidently. lot: seeds what is drawn."""
    rows = _rows(probabilities, entries, classes)
    row_of = {row["path"]: row for row in rows}
    wrong = sorted((row for row in rows if row["label"] != row["predicted"]), key=lambda row: -row["probability"])
    mistakes = [
        {
            **{name: row[name] for name in ("path", "label", "predicted", "probability")},
            "thumbnail": f"mistakes/{number:04}.jpg",
        }
        for number, row in enumerate(wrong[:MOST_MISTAKES], 1)
    ]
    spread = spread_over_classes(entries, SAMPLES)
    others = [entry for entry in entries if entry not in spread]
    drawn = random.Random(lot).sample(others, min(DRAWN_SAMPLES, len(others)))
    samples = [
        {
            **row_of[entry["path"]],
            "file": f"samples/{number:04}{Path(entry['path']).suffix.lower()}",
            "drawn": number > len(spread),
        }
        for number, entry in enumerate([*spread, *drawn], 1)
    ]
    return {"samples": samples, "mistakes": mistakes}


def _add_float32(samples: Sequence[dict[str, Any]], probabilities: np.ndarray, classes: Sequence[str]) -> None:
    """Beside what the variant answers: an endpoint's instance that cannot run it serves float32."""
    for sample, row in zip(samples, probabilities, strict=True):
        sample["float32"] = {"predicted": classes[int(row.argmax())], "probability": float(row.max())}


def _rows(probabilities: np.ndarray, entries: Sequence[dict[str, Any]], classes: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {
            "path": entry["path"],
            "sha256": entry["sha256"],
            "label": classes[entry["class_index"]],
            "predicted": classes[int(row.argmax())],
            "probability": float(row.max()),
        }
        for entry, row in zip(entries, probabilities, strict=True)
    ]


def _write_predictions(
    path: Path, probabilities: np.ndarray, entries: Sequence[dict[str, Any]], classes: Sequence[str]
) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ("path", "sha256", "label", "predicted", "probability"))
        writer.writeheader()
        writer.writerows(_rows(probabilities, entries, classes))


def _read(dataset: Path, entry: dict[str, Any]) -> bytes:
    try:
        content = read_file(dataset, entry["path"])
    except OSError as error:
        raise DatasetError(f"{entry['path']} of the manifest cannot be read: {error}") from error
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise DatasetError(f"{entry['path']} has changed since PrepareDataset: start a new run")
    return content


if __name__ == "__main__":
    run(lambda: evaluate(read_options(None)))
