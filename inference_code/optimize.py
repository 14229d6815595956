"""OptimizeModel: build the variants of a trained model, measure each, choose the one that serves.

The job runs in the serving image, on the endpoint's kind of instance, with the trained artifact's own code:

    python code/run_optimize.py OPT_ML ARTIFACT DATASET_CHANNEL MANIFEST_CHANNEL

ARTIFACT is the artifact, unpacked. Of OPT_ML it reads input/config/hyperparameters.json (variant, max_accuracy_loss),
and there it leaves the artifact with serving.json in model/, and variants.json (contracts/variants.schema.json) in it
and in checkpoints/. Every variant is scored on the validation split; the test split stays unseen.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from artifacts import ArtifactError, read_document, read_file, write_document
from choice import accept, choose, judge
from decoding import preprocess
from engines import EngineUnavailable, available_cores, check_processor, processor_name
from variants import PACKAGE_OF, VARIANTS

REQUIREMENTS = "optimize-requirements.txt"
MOST_IMAGES = 1000  # of the validation split: 600 MB of pixels at 224 px
CALIBRATION_IMAGES = 64
KEPT_LAYERS = (0, 2, 6)
"""How many of the most sensitive layers int8 leaves out, until it is accepted: each costs some of its speed."""
GOLDEN_TOLERANCES = {"float32": 0.01, "bfloat16": 0.05, "int8": 0.05}
"""Of the largest golden logit: what another processor may differ by."""
FAILURE_CHARACTERS = 1024  # SageMaker keeps this much of a job's FailureReason


@dataclass(frozen=True)
class Scored:
    """The validation split, (N, ...): the pixels are a file, the golden images at its end."""

    pixels: Path
    labels: np.ndarray
    calibration: np.ndarray


def optimize(opt_ml: Path, artifact: Path, dataset: Path, manifest: Path) -> None:
    """Leave the artifact with the variant that was chosen, and the table of all. Raises ArtifactError."""
    options = json.loads((opt_ml / "input" / "config" / "hyperparameters.json").read_bytes())
    requested, max_loss = options["variant"], float(options["max_accuracy_loss"])
    description = read_document(artifact, "model")
    with tempfile.TemporaryDirectory() as temporary:
        scored = _decode(description, artifact, dataset, _read_manifest(manifest), Path(temporary))
        table = _build_and_measure(artifact, description, scored, requested, max_loss, Path(temporary))
    chosen, reason = choose(table.rows, requested, max_loss)
    document = {
        "version": 1,
        "run_id": description["run_id"],
        "weights_sha256": description["weights_sha256"],
        "split": "valid",
        "images": len(scored.labels),
        "processor": processor_name(),
        "cores": available_cores(),
        "requested": requested,
        "max_accuracy_loss": max_loss,
        "chosen": chosen,
        "reason": reason,
        "kept_in_float32": table.kept,
        "variants": table.rows,
    }
    for folder in (opt_ml / "checkpoints", artifact):  # for whoever follows the run, and for EvaluateModel
        write_document(folder, "variants", document)
    _finish(artifact, description, chosen, table, opt_ml / "input" / "data" / "wheels")
    shutil.copytree(artifact, opt_ml / "model", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    print(reason, flush=True)


@dataclass
class Table:
    """The rows of variants.json as they come, and what is needed of each later."""

    rows: list[dict[str, Any]]
    golden: dict[str, np.ndarray]
    kept: list[str]


def _build_and_measure(
    artifact: Path, description: dict[str, Any], scored: Scored, requested: str, max_loss: float, folder: Path
) -> Table:
    wanted = list(VARIANTS) if requested == "fastest" else list(dict.fromkeys(["float32", requested]))
    table, float32 = Table([], {}, []), np.empty(0)
    for name in wanted:
        try:
            check_processor(VARIANTS[name]["precision"])
            if VARIANTS[name]["precision"] == "int8" and not (artifact / VARIANTS[name]["file"]).is_file():
                row, logits = _quantise(artifact, description, scored, float32, max_loss, folder, name, table)
            else:
                _export(artifact, description, name)
                logits, figures = _measure(artifact, description, name, scored, folder)
                float32 = logits if name == "float32" else float32
                row = _row(name, logits, figures, float32, scored.labels, description["temperature"], max_loss)
        except Exception as error:  # exporters and engines raise what they like; the others may serve yet
            if name == "float32":
                raise
            reason = f"{error}." if isinstance(error, EngineUnavailable) else f"{type(error).__name__}: {error}"
            table.rows.append({"variant": name, "accepted": False, "reason": reason, "measured": None})
        else:
            table.rows.append(row)
            table.golden[name] = logits[len(scored.labels) :]
        print(f"{name}: {table.rows[-1]['reason']}", flush=True)
    return table


def _row(
    name: str,
    logits: np.ndarray,
    figures: dict[str, Any],
    float32: np.ndarray,
    labels: np.ndarray,
    temperature: float,
    max_loss: float,
) -> dict[str, Any]:
    judged = judge(logits[: len(labels)], float32[: len(labels)], labels, temperature)
    accepted, reason = True, "It is what the others are held against."
    if name != "float32":
        loss = float((float32[: len(labels)].argmax(axis=1) == labels).mean()) - judged["accuracy"]
        accepted, reason = accept({**judged, "loss": loss}, max_loss)
    return {"variant": name, "accepted": accepted, "reason": reason, "measured": {**judged, **figures}}


def _quantise(
    artifact: Path,
    description: dict[str, Any],
    scored: Scored,
    float32: np.ndarray,
    max_loss: float,
    folder: Path,
    name: str,
    table: Table,
) -> tuple[dict[str, Any], np.ndarray]:
    """Build int8, with ever more of its most sensitive layers kept as they are, until it is accepted."""
    from variants import discard_prepared, quantise, rank_sensitive_layers

    _export(artifact, description, "onnx-float32")
    source, path = artifact / VARIANTS["onnx-float32"]["file"], artifact / VARIANTS[name]["file"]
    ranking: list[str] = []
    for number in KEPT_LAYERS:
        table.kept = ranking[:number]
        quantise(source, path, scored.calibration, table.kept)
        logits, figures = _measure(artifact, description, name, scored, folder)
        row = _row(name, logits, figures, float32, scored.labels, description["temperature"], max_loss)
        if row["accepted"]:
            break
        ranking = ranking or rank_sensitive_layers(source, path, scored.calibration)
    discard_prepared(source)
    return row, logits


def _export(artifact: Path, description: dict[str, Any], name: str) -> None:
    file = VARIANTS[name]["file"]
    if file is None or (artifact / file).is_file():
        return
    from networks import load_network
    from variants import export_float32

    weights = read_file(artifact, description["weights_file"], description["weights_sha256"])
    network = load_network(description, weights)
    export_float32(network, description["preprocessing"]["image_size_px"], artifact / file)


def _measure(
    artifact: Path, description: dict[str, Any], name: str, scored: Scored, folder: Path
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return a variant's logits of pixels and its figures, from a process of its own."""
    serving = _serving(artifact, description, name)
    given, measured = folder / "variant.json", folder / "measured.npz"
    given.write_text(json.dumps(serving))
    script = Path(__file__).with_name("measure.py")
    command = [sys.executable, script, artifact, given, scored.pixels, measured, repr(time.time())]
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr, flush=True)
        said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise ArtifactError(f"{name} could not be measured, its process ended with {done.returncode}: {said}")
    with np.load(measured) as found:
        return found["logits"].astype(np.float64), json.loads(str(found["figures"]))


def _serving(artifact: Path, description: dict[str, Any], name: str) -> dict[str, Any]:
    """Return what serving.json says of a variant before it is measured."""
    file = VARIANTS[name]["file"]
    return {
        "version": 1,
        "run_id": description["run_id"],
        "weights_sha256": description["weights_sha256"],
        "variant": name,
        **VARIANTS[name],
        "sha256": hashlib.sha256((artifact / file).read_bytes()).hexdigest() if file else None,
    }


def _finish(artifact: Path, description: dict[str, Any], chosen: str, table: Table, wheels: Path) -> None:
    """Leave in the artifact what the chosen variant needs, and nothing of the others.

    wheels: the channel of an endpoint without a network, if it is one: its engine travels with the artifact.
    """
    golden = table.golden[chosen]
    settings = next(row["measured"]["settings"] for row in table.rows if row["variant"] == chosen)
    serving = {
        **_serving(artifact, description, chosen),
        "golden_logits": golden.tolist(),
        "golden_tolerance": GOLDEN_TOLERANCES[VARIANTS[chosen]["precision"]] * float(np.abs(golden).max() or 1),
        "settings": settings,
    }
    write_document(artifact, "serving", serving)
    for file in {variant["file"] for variant in VARIANTS.values()} - {None, VARIANTS[chosen]["file"]}:
        (artifact / file).unlink(missing_ok=True)
    package = PACKAGE_OF.get(VARIANTS[chosen]["engine"])
    if package:
        _require(package, artifact / "code", wheels)


def _require(package: str, code: Path, wheels: Path) -> None:
    """Have the endpoint install an engine: from the index or, without a network, from the wheel that travels along."""
    pins = Path(__file__).with_name(REQUIREMENTS).read_text().splitlines()
    pin = next(pin for pin in pins if pin.startswith(f"{package}=="))
    with (code / "requirements.txt").open("a") as requirements:
        requirements.write(f"{pin}\n")
    for wheel in wheels.glob(f"{pin.replace('==', '-')}-*.whl"):
        shutil.copy(wheel, code / "wheels")


def _decode(
    description: dict[str, Any], artifact: Path, dataset: Path, manifest: dict[str, Any], folder: Path
) -> Scored:
    preprocessing = description["preprocessing"]
    whole = [entry for entry in manifest["images"] if not entry["truncated"]]  # a server refuses the others
    valid = _spread([entry for entry in whole if entry["split"] == "valid"], MOST_IMAGES)
    train = _spread([entry for entry in whole if entry["split"] == "train"], CALIBRATION_IMAGES)
    golden = [read_file(artifact, example["file"]) for example in description["golden"]]
    size = preprocessing["image_size_px"]
    shape = (len(valid) + len(golden), 3, size, size)
    pixels = np.lib.format.open_memmap(folder / "pixels.npy", mode="w+", dtype=np.float32, shape=shape)
    with _opened(dataset, valid[0]["path"]) as read:
        for number, entry in enumerate(valid):
            pixels[number] = preprocess(_image(read, entry), preprocessing)
        calibration = np.stack([preprocess(_image(read, entry), preprocessing) for entry in train])
    for number, image in enumerate(golden, len(valid)):
        pixels[number] = preprocess(image, preprocessing)
    pixels.flush()
    return Scored(folder / "pixels.npy", np.array([entry["class_index"] for entry in valid]), calibration)


def _spread(entries: list[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Return at most so many entries, at equal distances: the manifest is sorted by class."""
    return [entries[index * len(entries) // most] for index in range(most)] if len(entries) > most else entries


@contextmanager
def _opened(dataset: Path, known: str) -> Iterator[Callable[[str], bytes]]:
    """Give what reads a file by its path: in a folder of images, where the file `known` is, or in the one archive."""
    archives = [path for path in dataset.glob("*.[zZ][iI][pP]") if not path.name.startswith(".")]
    if (dataset / known).is_file() or not archives:
        yield lambda path: (dataset / path).read_bytes()
    else:
        with zipfile.ZipFile(archives[0]) as archive:
            yield archive.read


def _image(read: Callable[[str], bytes], entry: dict[str, Any]) -> bytes:
    content = read(entry["path"])
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        raise ArtifactError(f"{entry['path']} has changed since PrepareDataset: start a new run")
    return content


def _read_manifest(folder: Path) -> dict[str, Any]:
    return read_document(folder, "manifest")


def main(arguments: list[str]) -> None:
    """Do the job; a failure's reason goes where SageMaker reads it."""
    opt_ml, artifact, dataset, manifest = map(Path, arguments)
    try:
        optimize(opt_ml, artifact, dataset, manifest)
    except Exception as error:
        (opt_ml / "output").mkdir(exist_ok=True)
        (opt_ml / "output" / "failure").write_text(f"{type(error).__name__}: {error}"[:FAILURE_CHARACTERS])
        raise


if __name__ == "__main__":
    main(sys.argv[1:])
