"""Classify images with a trained artifact: SageMaker's four functions, and the logits that everything else is made of.

The artifact (model.tar.gz, unpacked) carries this file below code/ and, at its root, model.json, which is all that is
known here about the model: contracts/model.schema.json describes it. deployment.py serves it, the evaluation job scores
through it, and the training job takes the answers of the golden images from it: one function, `predict_logits`, gives
the logits of all three. OptimizeModel adds serving.json (contracts/serving.schema.json): the variant that serves.

By hand, on an unpacked artifact, in an environment with torch, torchvision, Pillow, safetensors and fastjsonschema:

    python code/inference.py ARTIFACT_FOLDER photo.jpg [more images]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from artifacts import ArtifactError, read_document, read_file
from decoding import BadRequest, UnsupportedMediaType, check_signature, preprocess
from engines import Cores, Engine, EngineUnavailable, open_engine

CONTENT_TYPES = ("image/jpeg", "image/png", "application/x-image")
MOST_PREDICTIONS = 5
FLOAT32: dict[str, Any] = {"variant": "float32", "engine": "torch", "precision": "float32"}
"""What serves where serving.json names nothing else, or nothing that runs here."""


class NotAcceptable(BadRequest):
    """The client wants something other than JSON."""

    status = 406


@dataclass(frozen=True)
class Model:
    """An engine, what model.json and serving.json say about it, and the model package that it was deployed from."""

    engine: Engine
    description: dict[str, Any]
    serving: dict[str, Any]
    package_arn: str | None = None


def model_fn(model_dir: str | Path, package_arn: str | None = None, cores: Cores | None = None) -> Model:
    """Load the artifact unpacked at `model_dir`: what serving.json names, or float32 where that does not run.

    package_arn: told with every answer. cores: how the engine may use them. Raises ArtifactError.
    """
    root, description = Path(model_dir), _read_description(Path(model_dir))
    if (root / "serving.json").is_file():
        serving = read_document(root, "serving")
        if serving["weights_sha256"] != description["weights_sha256"]:
            raise ArtifactError(f"{root}/serving.json is of other weights than model.json: optimise the artifact again")
        try:
            return Model(open_engine(root, description, serving, cores), description, serving, package_arn)
        except EngineUnavailable as missing:
            print(f"serving float32 instead of {serving['variant']}: {missing}", flush=True)
    return float32_model(root, description, package_arn, cores)


def float32_model(
    root: Path, description: dict[str, Any], package_arn: str | None = None, cores: Cores | None = None
) -> Model:
    """Load what serves where nothing else does. description: model.json. Raises ArtifactError."""
    return Model(open_engine(root, description, FLOAT32, cores), description, FLOAT32, package_arn)


def serving_settings(model_dir: str | Path) -> dict[str, int]:
    """Return how the cores are used best, as serving.json says: threads of an answer and images at once.

    Without it, one thread an answer, for as many answers at once as there are cores: the least work an image.
    """
    root = Path(model_dir)
    if not (root / "serving.json").is_file():
        return {"threads": 1, "batch_size": 1}
    return read_document(root, "serving")["settings"]


def verified_model(model_dir: str | Path, package_arn: str | None, cores: Cores | None) -> Model:
    """Load the artifact as model_fn does, and have it answer its golden images, which warms it up, too.

    A variant that answers them otherwise than where it was made, or not at all, gives way to float32. Raises
    ArtifactError.
    """
    model = model_fn(model_dir, package_arn, cores)
    try:
        verify_golden_images(model, model_dir)
    except Exception as error:  # an engine that loads may fail at its first answer, with what it likes
        if model.serving is FLOAT32:
            raise
        print(f"serving float32 instead of {model.serving['variant']}: {error}", flush=True)
        model = float32_model(Path(model_dir), model.description, package_arn, cores)
        verify_golden_images(model, model_dir)
    return model


def input_fn(request_body: bytes, content_type: str | None) -> bytes:
    """Return the request's image, still encoded. Raises UnsupportedMediaType, UnreadableImage.

    The declared type must be an image's; which kind of image it is, its content decides.
    """
    declared = (content_type or "").partition(";")[0].strip().lower()
    if declared not in CONTENT_TYPES:
        raise UnsupportedMediaType(f"Content-Type is {content_type or 'missing'}, expected {', '.join(CONTENT_TYPES)}")
    check_signature(request_body)
    return request_body


def predict_fn(image: bytes, model: Model) -> dict[str, Any]:
    """Return the most probable labels of one encoded image, best first, and which model says so.

    Raises UnreadableImage, UnsupportedMediaType.
    """
    return interpret(predict_logits(model, [image])[0], model)


def interpret(logits: np.ndarray, model: Model) -> dict[str, Any]:
    """Return the answer to an image that has these logits, (C,), before temperature."""
    description = model.description
    scaled = logits.astype(np.float64) / description["temperature"]
    exponentials = np.exp(scaled - scaled.max())
    probabilities = exponentials / exponentials.sum()
    best = np.argsort(-probabilities, kind="stable")[:MOST_PREDICTIONS]
    return {
        "predictions": [{"label": description["classes"][i], "probability": float(probabilities[i])} for i in best],
        "model": {
            "run_id": description["run_id"],
            "weights_sha256": description["weights_sha256"],
            "confidence_threshold": description["confidence_threshold"],
            "package_arn": model.package_arn,
        },
    }


def output_fn(prediction: dict[str, Any], accept: str | None) -> tuple[bytes, str]:
    """Return body and content type of the answer. Raises NotAcceptable."""
    ranges = {part.partition(";")[0].strip().lower() for part in (accept or "*/*").split(",")}
    if ranges.isdisjoint({"application/json", "application/*", "*/*"}):
        raise NotAcceptable(f"Accept is {accept}, the answer is application/json")
    return json.dumps(prediction).encode(), "application/json"


def predict_logits(model: Model, images: Sequence[bytes]) -> np.ndarray:
    """Return the logits of encoded images, (N, C) float32, before temperature.

    All of them go through the network at once: N is the caller's batch size. Raises UnreadableImage,
    UnsupportedMediaType.
    """
    preprocessing = model.description["preprocessing"]
    return model.engine.logits(np.stack([preprocess(image, preprocessing) for image in images]))


def verify_golden_images(model: Model, model_dir: str | Path) -> int:
    """Answer the artifact's golden images and return their number.

    Raises ArtifactError if there are none, or a logit is off by more than the tolerance of the variant that serves.
    """
    golden = model.description["golden"]
    if not golden:
        raise ArtifactError("model.json has no golden images: nothing shows that this is the model that was trained")
    said, tolerance = [example["logits"] for example in golden], model.description["golden_tolerance"]
    if model.serving is not FLOAT32:
        said, tolerance = model.serving["golden_logits"], model.serving["golden_tolerance"]
    for example, logits in zip(golden, said, strict=True):
        _verify_golden_image(model, Path(model_dir), example["file"], np.asarray(logits, dtype=np.float32), tolerance)
    return len(golden)


def _verify_golden_image(model: Model, root: Path, file: str, expected: np.ndarray, tolerance: float) -> None:
    try:
        logits = predict_logits(model, [read_file(root, file)])[0]
    except BadRequest as error:
        raise ArtifactError(f"golden image {file} cannot be read: {error}") from error
    if logits.shape != expected.shape:
        raise ArtifactError(f"golden image {file} has {expected.size} logits, the network {logits.size}")
    difference = float(np.abs(logits - expected).max())
    if not difference <= tolerance:  # a NaN is no answer either
        raise ArtifactError(
            f"a logit of golden image {file} is {difference:.3g} off what model.json says, at most "
            f"{tolerance} is allowed: weights, preprocessing or network are not those that were trained"
        )


def _read_description(root: Path) -> dict[str, Any]:
    description = read_document(root, "model")
    short, size = (description["preprocessing"][name] for name in ("resize_px", "image_size_px"))
    if short < size:
        raise ArtifactError(
            f"{root}/model.json scales the short side to {short} px, from which no square of {size} px can be cut"
        )
    return description


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: inference.py ARTIFACT_FOLDER IMAGE [IMAGE ...]")
    loaded = model_fn(sys.argv[1])
    for argument in sys.argv[2:]:
        print(argument, json.dumps(predict_fn(Path(argument).read_bytes(), loaded)["predictions"]))
