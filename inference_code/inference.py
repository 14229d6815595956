"""Classify images with a trained artifact: SageMaker's four functions, and the logits that everything else is made of.

The artifact (model.tar.gz, unpacked) carries this file below code/ and, at its root, model.json, which is all that is
known here about the model: contracts/model.schema.json describes it. deployment.py serves it, the evaluation job scores
through it, and the training job takes the answers of the golden images from it: one function, `predict_logits`, gives
the logits of all three.

By hand, on an unpacked artifact, in an environment with torch, torchvision, Pillow, safetensors and fastjsonschema:

    python code/inference.py ARTIFACT_FOLDER photo.jpg [more images]
"""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fastjsonschema
import numpy as np
import torch
import torchvision
from PIL import Image, ImageOps
from safetensors import SafetensorError
from safetensors.torch import load

SCHEMA = Path(__file__).parent / "contracts" / "model.schema.json"
CONTENT_TYPES = ("image/jpeg", "image/png", "application/x-image")
MOST_PREDICTIONS = 5
AUXILIARY = ("googlenet", "inception_v3")  # their classifiers for training only are not part of an artifact
MOST_PIXELS = 64_000_000  # of an image, before it is decoded: 200 MB in memory; SageMaker lets through 6 MiB of a file
INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
SIGNATURES = (  # what a file begins with; the first two are served, the others are named when they are refused
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"%PDF", "PDF"),
)


class ArtifactError(Exception):
    """The artifact cannot be served: incomplete, inconsistent, or it does not give its own golden answers."""


class BadRequest(Exception):
    """Base of what can be wrong with a request: `status` is the HTTP status, the message the reason."""

    status = 400


class UnreadableImage(BadRequest):
    """The bytes are not an image that can be decoded whole."""


class UnsupportedMediaType(BadRequest):
    """Declared, or by its content, something other than a JPEG or PNG image."""

    status = 415


class NotAcceptable(BadRequest):
    """The client wants something other than JSON."""

    status = 406


@dataclass(frozen=True)
class Model:
    """A network in eval mode, what model.json says about it, and the model package that it was deployed from."""

    network: torch.nn.Module
    description: dict[str, Any]
    package_arn: str | None = None


def model_fn(model_dir: str | Path, package_arn: str | None = None) -> Model:
    """Load the artifact unpacked at `model_dir`. package_arn: told with every answer. Raises ArtifactError."""
    root = Path(model_dir)
    description = _read_description(root)
    weights = _below(root, description["weights_file"])
    tensors = weights.read_bytes()
    digest, expected = hashlib.sha256(tensors).hexdigest(), description["weights_sha256"]
    if digest != expected:
        raise ArtifactError(f"{weights} has the SHA-256 {digest}, model.json says {expected}: rebuild the artifact")
    network = _build_network(description)
    try:
        network.load_state_dict(load(tensors))
    except (SafetensorError, RuntimeError) as error:
        raise ArtifactError(
            f"{weights} does not fit the {description['architecture']} of model.json: {error}"
        ) from error
    return Model(network.eval().to(memory_format=torch.channels_last), description, package_arn)


def input_fn(request_body: bytes, content_type: str | None) -> bytes:
    """Return the request's image, still encoded. Raises UnsupportedMediaType, UnreadableImage.

    The declared type must be an image's; which kind of image it is, its content decides.
    """
    declared = (content_type or "").partition(";")[0].strip().lower()
    if declared not in CONTENT_TYPES:
        raise UnsupportedMediaType(f"Content-Type is {content_type or 'missing'}, expected {', '.join(CONTENT_TYPES)}")
    _check_signature(request_body)
    return request_body


def predict_fn(image: bytes, model: Model) -> dict[str, Any]:
    """Return the most probable labels of one encoded image, best first, and which model says so.

    Raises UnreadableImage, UnsupportedMediaType.
    """
    description = model.description
    logits = predict_logits(model, [image])[0].astype(np.float64) / description["temperature"]
    exponentials = np.exp(logits - logits.max())
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
    batch = torch.stack([preprocess(image, preprocessing) for image in images])
    with torch.inference_mode():
        logits = model.network(batch.contiguous(memory_format=torch.channels_last))
    return logits.float().numpy()


def preprocess(image: bytes, preprocessing: dict[str, Any]) -> torch.Tensor:
    """Return an encoded image as the network wants it, (3, S, S) float32, S = image_size_px.

    Short side to resize_px (Pillow's filters, which do not alias), the centre square, 0..1, minus mean, by std. Sizes
    are rounded as torchvision's Resize and CenterCrop do it. Raises UnreadableImage, UnsupportedMediaType.
    """
    picture = decode(image)
    short, size = preprocessing["resize_px"], preprocessing["image_size_px"]
    width, height = picture.size
    scaled = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    if scaled[0] * scaled[1] > MOST_PIXELS:
        raise UnreadableImage(
            f"the image has {width} x {height} pixels, which is too narrow to be scaled to {short} px"
        )
    picture = picture.resize(scaled, INTERPOLATIONS[preprocessing["interpolation"]])
    left, top = round((scaled[0] - size) / 2), round((scaled[1] - size) / 2)
    square = np.array(picture.crop((left, top, left + size, top + size)))
    pixels = torch.from_numpy(square).permute(2, 0, 1).float().div_(255)
    mean, std = (torch.tensor(preprocessing[name]).view(3, 1, 1) for name in ("mean", "std"))
    return pixels.sub_(mean).div_(std)


def decode(image: bytes) -> Image.Image:
    """Decode a JPEG or PNG file to an upright RGB picture: EXIF orientation, transparency on white, 16 bits to 8.

    Raises UnreadableImage, before anything is decoded if it has more than MOST_PIXELS pixels, and UnsupportedMediaType.
    """
    _check_signature(image)
    try:
        picture = Image.open(io.BytesIO(image), formats=("JPEG", "PNG"))
        width, height = picture.size
        if width * height > MOST_PIXELS:
            raise UnreadableImage(f"the image has {width} x {height} pixels, at most {MOST_PIXELS} in all are accepted")
        return _to_rgb(ImageOps.exif_transpose(picture))
    except (UnreadableImage, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage(f"at most {MOST_PIXELS} pixels in all are accepted: {error}") from error
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
        raise UnreadableImage(f"the image cannot be decoded: {error}") from error


def verify_golden_images(model: Model, model_dir: str | Path) -> int:
    """Answer the artifact's golden images and return their number.

    Raises ArtifactError if there are none, or a logit is off by more than golden_tolerance.
    """
    golden, tolerance = model.description["golden"], model.description["golden_tolerance"]
    if not golden:
        raise ArtifactError("model.json has no golden images: nothing shows that this is the model that was trained")
    for example in golden:
        try:
            logits = predict_logits(model, [_below(Path(model_dir), example["file"]).read_bytes()])[0]
        except BadRequest as error:
            raise ArtifactError(f"golden image {example['file']} cannot be read: {error}") from error
        expected = np.asarray(example["logits"], dtype=np.float32)
        if logits.shape != expected.shape:
            raise ArtifactError(f"golden image {example['file']} has {expected.size} logits, the network {logits.size}")
        difference = float(np.abs(logits - expected).max())
        if not difference <= tolerance:  # a NaN is no answer either
            raise ArtifactError(
                f"a logit of golden image {example['file']} is {difference:.3g} off what model.json says, at most "
                f"{tolerance} is allowed: weights, preprocessing or network are not those that were trained"
            )
    return len(golden)


def _read_description(root: Path) -> dict[str, Any]:
    path = root / "model.json"
    try:
        description = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error
    try:
        fastjsonschema.compile(json.loads(SCHEMA.read_bytes()))(description)
    except fastjsonschema.JsonSchemaException as error:
        raise ArtifactError(f"{path} does not keep contracts/model.schema.json: {error}") from error
    short, size = (description["preprocessing"][name] for name in ("resize_px", "image_size_px"))
    if short < size:
        raise ArtifactError(f"{path} scales the short side to {short} px, from which no square of {size} px can be cut")
    return description


def _below(root: Path, name: str) -> Path:
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()) or not path.is_file():
        raise ArtifactError(f"model.json names {name!r}, which is not a file of the artifact at {root}")
    return path


def _build_network(description: dict[str, Any]) -> torch.nn.Module:
    """Build torchvision's network with the seed's two fully connected layers in place of its classifier."""
    architecture, head = description["architecture"], description["head"]
    try:
        options = {"aux_logits": False, "init_weights": False} if architecture in AUXILIARY else {}
        network = torchvision.models.get_model(architecture, weights=None, **options)
        replaced = network.get_submodule(head["path"])
    except (ValueError, AttributeError) as error:
        raise ArtifactError(
            f"torchvision {torchvision.__version__} has no {architecture} with a layer {head['path']}: {error}"
        ) from error
    if getattr(replaced, "in_features", None) != head["in_features"]:
        raise ArtifactError(f"{head['path']} of {architecture} is {replaced}, expected {head['in_features']} inputs")
    parent, _, name = head["path"].rpartition(".")
    layers = OrderedDict(
        hidden=torch.nn.Linear(head["in_features"], head["hidden_units"]),
        activation=torch.nn.ReLU(),
        dropout=torch.nn.Dropout(head["dropout"]),
        output=torch.nn.Linear(head["hidden_units"], len(description["classes"])),
    )
    setattr(network.get_submodule(parent), name, torch.nn.Sequential(layers))
    return network


def _check_signature(image: bytes) -> None:
    if not image:
        raise UnreadableImage("the body is empty")
    kind = next((name for signature, name in SIGNATURES if image.startswith(signature)), None)
    if image[8:12] == b"WEBP":
        kind = "WebP"
    elif image[4:8] == b"ftyp":
        kind = "HEIF or a video"
    if kind is None:
        raise UnreadableImage(f"the body of {len(image)} bytes is neither JPEG nor PNG")
    if kind not in ("JPEG", "PNG"):
        raise UnsupportedMediaType(f"the body is {kind}, send JPEG or PNG")


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: inference.py ARTIFACT_FOLDER IMAGE [IMAGE ...]")
    loaded = model_fn(sys.argv[1])
    for argument in sys.argv[2:]:
        print(argument, json.dumps(predict_fn(Path(argument).read_bytes(), loaded)["predictions"]))
