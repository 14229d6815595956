"""The data set: its images decoded to squares, and the manifest that every job after the first reads.

Nothing here needs torch, so that a job that only decodes does not wait for it.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from documents import read_document
from job import JobError
from layout import SPLITS
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG")
MOST_PIXELS = 64_000_000  # of an image: the serving code takes no larger one either
NAMED_PATHS = 10  # of the files that an error is about


class DatasetError(JobError):
    """The data set cannot be used as it is; the message names the folders or files."""


class UnreadableImage(Exception):
    """A file is not a JPEG or PNG image that can be decoded whole."""


def count_images(entries: Iterable[dict[str, Any]], classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return the number of images by split, then by class."""
    numbers = Counter((entry["split"], entry["class_index"]) for entry in entries)
    return {split: {name: numbers[split, index] for index, name in enumerate(classes)} for split in SPLITS}


def digest_images(entries: Iterable[dict[str, Any]], classes: Sequence[str]) -> str:
    """Return the data digest: SHA-256 over path, split, class and content digest of every image, sorted by path."""
    total = hashlib.sha256()
    for entry in sorted(entries, key=lambda entry: entry["path"]):
        fields = (entry["path"], entry["split"], classes[entry["class_index"]], entry["sha256"])
        total.update(("\t".join(fields) + "\n").encode())
    return total.hexdigest()


def read_manifest(path: Path) -> dict[str, Any]:
    """Read manifest.json, given as a file or as the folder that holds it. Raises DocumentError."""
    return read_document(path / "manifest.json" if path.is_dir() else path, "manifest")


def images_of(manifest: dict[str, Any], split: str) -> list[dict[str, Any]]:
    """Return a split's entries, in the manifest's order."""
    return [entry for entry in manifest["images"] if entry["split"] == split]


def spread_over_classes(entries: Sequence[dict[str, Any]], number: int) -> list[dict[str, Any]]:
    """Choose up to `number` entries, as many classes among them as possible, the same ones every time."""
    by_class: dict[int, list[dict[str, Any]]] = {}
    for entry in sorted(entries, key=lambda entry: entry["path"]):
        by_class.setdefault(entry["class_index"], []).append(entry)
    rounds = max((len(members) for members in by_class.values()), default=0)
    in_turn = [
        by_class[index][turn] for turn in range(rounds) for index in sorted(by_class) if turn < len(by_class[index])
    ]
    if number < len(by_class):
        return [in_turn[position * len(by_class) // number] for position in range(number)]
    return in_turn[:number]


def read_header(content: bytes) -> tuple[str, int, int]:
    """Return a file's format, width and height, which are those before EXIF turns it. Raises UnreadableImage."""
    if not content:
        raise UnreadableImage("the file is empty")
    try:
        picture = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage("neither JPEG nor PNG by its content") from error
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
        raise UnreadableImage(str(error) or type(error).__name__) from error
    # Phones put several pictures into one JPEG file, of which every decoder shows the first; Pillow names that MPO.
    return "PNG" if picture.format == "PNG" else "JPEG", *picture.size


def check_shape(width: int, height: int, resize_px: int) -> None:
    """Raise UnreadableImage for a picture that is too narrow to be scaled, as the serving code does."""
    if max(width, height) * resize_px // min(width, height) * resize_px > MOST_PIXELS:
        raise UnreadableImage(f"{width} x {height} pixels, which is too narrow to be scaled to {resize_px} px")


def decode(content: bytes, at_least_px: int | None = None) -> Image.Image:
    """Decode a JPEG or PNG file to an upright RGB picture: EXIF orientation, transparency on white, 16 bits to 8.

    With `at_least_px` a JPEG may come at a half, a quarter or an eighth of its size, as long as both sides keep that
    many pixels: its decoder scales for next to nothing. Raises UnreadableImage.
    """
    try:
        picture: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
        width, height = picture.size
        if width * height > MOST_PIXELS:
            raise UnreadableImage(f"{width} x {height} pixels, at most {MOST_PIXELS} in all are accepted")
        if at_least_px:
            picture.draft("RGB", (at_least_px, at_least_px))
        return _to_rgb(ImageOps.exif_transpose(picture))
    except (UnreadableImage, MemoryError):
        raise
    except Image.UnidentifiedImageError as error:
        raise UnreadableImage("neither JPEG nor PNG by its content") from error
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
        raise UnreadableImage(str(error) or type(error).__name__) from error


def to_square(picture: Image.Image, preprocessing: Mapping[str, Any]) -> np.ndarray:
    """Return the square that the network sees, (S, S, 3) uint8, S = image_size_px: see model.json's preprocessing.

    fit `crop`: the short side scaled to resize_px, the centre cut out; `pad`: the long side scaled to S, the rest
    filled with the mean. Bilinear with Pillow's filter, which does not alias; sizes rounded as torchvision's Resize and
    CenterCrop do it, and as the serving code does it. Raises UnreadableImage for a picture that is too narrow.
    """
    size, resize = preprocessing["image_size_px"], preprocessing["resize_px"]
    width, height = picture.size
    if preprocessing["fit"] == "pad":
        across, down = (max(1, round(size * side / max(width, height))) for side in (width, height))
        square = Image.new("RGB", (size, size), fill_of(preprocessing))
        square.paste(
            picture.resize((across, down), Image.Resampling.BILINEAR), ((size - across) // 2, (size - down) // 2)
        )
        return np.array(square)
    check_shape(width, height, resize)
    scaled = (resize, int(resize * height / width)) if width <= height else (int(resize * width / height), resize)
    left, top = round((scaled[0] - size) / 2), round((scaled[1] - size) / 2)
    across, down = width / scaled[0], height / scaled[1]
    right, bottom = min((left + size) * across, width), min((top + size) * down, height)
    box = (left * across, top * down, right, bottom)  # nothing but the centre is computed
    return np.array(picture.resize((size, size), Image.Resampling.BILINEAR, box))


def fill_of(preprocessing: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return the colour of what a picture does not fill: the one that is next to nothing once it is normalised."""
    red, green, blue = (round(255 * value) for value in preprocessing["mean"])
    return red, green, blue


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
        return Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")
