"""From an encoded image to what the network wants: decoded no larger than needed, scaled, cut and normalised."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageOps

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


class BadRequest(Exception):
    """Base of what can be wrong with a request: `status` is the HTTP status, the message the reason."""

    status = 400


class UnreadableImage(BadRequest):
    """The bytes are not an image that can be decoded whole."""


class UnsupportedMediaType(BadRequest):
    """Declared, or by its content, something other than a JPEG or PNG image."""

    status = 415


def preprocess(image: bytes, preprocessing: dict[str, Any]) -> np.ndarray:
    """Return an encoded image as the network wants it, (3, S, S) float32, S = image_size_px.

    fit `crop`: short side to resize_px (Pillow's filters, which do not alias), the centre square, sizes rounded as
    torchvision's Resize and CenterCrop do it; only the centre square is computed. `pad`: long side to S, the rest
    filled with the mean. Then 0..1, minus mean, by std. A JPEG is decoded at a half, a quarter or an eighth where
    that leaves resize_px. Raises UnreadableImage, UnsupportedMediaType.
    """
    picture = decode(image, preprocessing["resize_px"])
    square = _padded(picture, preprocessing) if preprocessing.get("fit") == "pad" else _cut(picture, preprocessing)
    return _normalise(np.asarray(square), preprocessing["mean"], preprocessing["std"])


def _cut(picture: Image.Image, preprocessing: dict[str, Any]) -> Image.Image:
    short, size = preprocessing["resize_px"], preprocessing["image_size_px"]
    width, height = picture.size
    scaled = (short, int(short * height / width)) if width <= height else (int(short * width / height), short)
    if scaled[0] * scaled[1] > MOST_PIXELS:
        raise UnreadableImage(
            f"the image has {width} x {height} pixels, which is too narrow to be scaled to {short} px"
        )
    return _cut_centre(picture, scaled, size, INTERPOLATIONS[preprocessing["interpolation"]])


def _padded(picture: Image.Image, preprocessing: dict[str, Any]) -> Image.Image:
    size, longest = preprocessing["image_size_px"], max(picture.size)
    width, height = (max(1, round(size * side / longest)) for side in picture.size)
    red, green, blue = (round(255 * value) for value in preprocessing["mean"])
    square = Image.new("RGB", (size, size), (red, green, blue))
    scaled = picture.resize((width, height), INTERPOLATIONS[preprocessing["interpolation"]])
    square.paste(scaled, ((size - width) // 2, (size - height) // 2))
    return square


def decode(image: bytes, at_least_px: int | None = None) -> Image.Image:
    """Decode a JPEG or PNG file to an upright RGB picture: EXIF orientation, transparency on white, 16 bits to 8.

    With `at_least_px` a JPEG may come at a half, a quarter or an eighth of its size, as long as both sides keep that
    many pixels: its decoder scales for next to nothing. Raises UnreadableImage, before anything is decoded if it has
    more than MOST_PIXELS pixels, and UnsupportedMediaType.
    """
    check_signature(image)
    try:
        picture = Image.open(io.BytesIO(image), formats=("JPEG", "PNG"))
        width, height = picture.size
        if width * height > MOST_PIXELS:
            raise UnreadableImage(f"the image has {width} x {height} pixels, at most {MOST_PIXELS} in all are accepted")
        if at_least_px:
            picture.draft("RGB", (at_least_px, at_least_px))
        return _to_rgb(ImageOps.exif_transpose(picture))
    except (UnreadableImage, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage(f"at most {MOST_PIXELS} pixels in all are accepted: {error}") from error
    except Image.UnidentifiedImageError as error:  # whose message is an address in memory
        raise UnreadableImage("the image's header cannot be read") from error
    except Exception as error:  # Pillow's decoders raise whatever a broken file leads them to
        raise UnreadableImage(f"the image cannot be decoded: {error}") from error


def check_signature(image: bytes) -> None:
    """Raise UnreadableImage or UnsupportedMediaType unless the file begins as a JPEG or PNG does."""
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


def _cut_centre(picture: Image.Image, scaled: tuple[int, int], size: int, resampling: Image.Resampling) -> Image.Image:
    """Return the centre square of the picture scaled to `scaled`, computing nothing else of it."""
    left, top = round((scaled[0] - size) / 2), round((scaled[1] - size) / 2)
    if resampling == Image.Resampling.NEAREST:  # a box would move its ties, and there is nothing to save
        return picture.resize(scaled, resampling).crop((left, top, left + size, top + size))
    across, down = picture.width / scaled[0], picture.height / scaled[1]
    right, bottom = min((left + size) * across, picture.width), min((top + size) * down, picture.height)
    return picture.resize((size, size), resampling, (left * across, top * down, right, bottom))


def _normalise(square: np.ndarray, mean: list[float], std: list[float]) -> np.ndarray:
    """Return (3, S, S) float32 of (S, S, 3) uint8: one multiplication and one addition a value, one copy in all."""
    planes = np.empty((3, *square.shape[:2]), dtype=np.float32)
    for channel, plane in enumerate(planes):
        np.multiply(square[:, :, channel], np.float32(1 / (255 * std[channel])), out=plane)
        plane -= np.float32(mean[channel] / std[channel])
    return planes
