"""The request's body for an image: the file itself if the endpoint takes it, else the same picture in a form it takes.

The endpoint decodes JPEG and PNG. The decoders of other formats run here and never beside the live model: here a file
that breaks one costs one message's try.
"""

import io
import math
import warnings
from typing import TYPE_CHECKING

from content import ContentRejected

if TYPE_CHECKING:
    from PIL import Image

TAKEN_BY_ENDPOINT = ("image/jpeg", "image/png")
QUALITY = 92
QUALITY_UNSCALED = 95
MOST_DECODED_BYTES = 480 * 1024 * 1024
"""Of what decoding is estimated to need: leaves the function's memory (template.yaml) room for the file and Python."""
BYTES_A_PIXEL = 4
"""Pillow keeps RGB in four bytes: https://pillow.readthedocs.io/en/stable/handbook/concepts.html#modes"""
COPIES_OF_WEBP = 5
"""libwebp's canvas, the frame before it and its own working copy, the bytes handed over, and the picture: measured."""
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")


def body_of(image: bytes, content_type: str, most_bytes: int, short_side_px: int) -> tuple[bytes, str]:
    """Return body and content type for the endpoint, at most `most_bytes`.

    A JPEG or PNG that fits goes as it is. Other formats are converted, unscaled if they then fit. What does not fit is
    scaled down: its short side to less than twice `short_side_px`, which a JPEG's decoder does on its way, and only if
    that does not fit to `short_side_px` itself. Raises ContentRejected.
    """
    if content_type in TAKEN_BY_ENDPOINT and len(image) <= most_bytes:
        return image, content_type
    scaled = content_type in TAKEN_BY_ENDPOINT
    picture = _decoded(image, content_type, short_side_px if scaled else None)
    if not scaled:
        body, body_type = _unscaled(picture, most_bytes)
        if len(body) <= most_bytes:
            return body, body_type
    if min(picture.size) < 2 * short_side_px:
        body = _encoded(picture, "JPEG", quality=QUALITY)
        if len(body) <= most_bytes:
            return body, "image/jpeg"
    body = _encoded(_scaled_down(picture, short_side_px), "JPEG", quality=QUALITY)
    if len(body) > most_bytes:
        raise ContentRejected(
            "TooLarge", f"{len(body)} bytes after scaling down: the endpoint takes at most {most_bytes}"
        )
    return body, "image/jpeg"


def _scaled_down(picture: "Image.Image", short_side_px: int) -> "Image.Image":
    factor = min(1.0, short_side_px / min(picture.size))
    return picture.resize((math.ceil(picture.width * factor), math.ceil(picture.height * factor)), reducing_gap=3.0)


def _unscaled(picture: "Image.Image", most_bytes: int) -> tuple[bytes, str]:
    """Without loss if that is sure to fit."""
    if picture.width * picture.height * 3 < 0.99 * most_bytes:
        return _encoded(picture, "PNG", compress_level=1), "image/png"
    return _encoded(picture, "JPEG", quality=QUALITY_UNSCALED, subsampling=0), "image/jpeg"


def _encoded(picture: "Image.Image", encoder: str, **options: int) -> bytes:
    body = io.BytesIO()
    picture.save(body, encoder, **options)
    return body.getvalue()


def _decoded(image: bytes, content_type: str, short_side_px: int | None) -> "Image.Image":
    """Decode to an upright RGB picture; a JPEG at a reduced scale of which the short side is still short_side_px.

    Raises ContentRejected: before anything is decoded, if that would need more than MOST_DECODED_BYTES.
    """
    from PIL import Image, ImageOps  # 40 ms that most images do not need

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is odd about a file; what is too big is decided here
            _check_canvas(image, content_type)
            picture = Image.open(io.BytesIO(image), formats=(content_type.removeprefix("image/").upper(),))
            width, height = picture.size
            kept = 0
            if content_type == "image/jpeg" and short_side_px:
                if "progressive" in picture.info:  # its coefficients are kept whole, 16 bits each
                    kept = width * height * len(picture.getbands()) * 2
                scale = min(1.0, short_side_px / min(width, height))
                picture.draft("RGB", (math.ceil(width * scale), math.ceil(height * scale)))
            copies = 4 if picture.has_transparency_data else 2
            if content_type == "image/webp":
                copies = COPIES_OF_WEBP
            _check_memory(width, height, kept + picture.width * picture.height * BYTES_A_PIXEL * copies)
            return _to_rgb(ImageOps.exif_transpose(picture))
    except (ContentRejected, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ContentRejected("TooManyPixels", str(error)) from error
    except Image.UnidentifiedImageError as error:  # whose message is an address in memory
        raise ContentRejected("UnreadableImage", f"{content_type} whose header cannot be read") from error
    except Exception as error:
        raise ContentRejected("UnreadableImage", f"{content_type} that cannot be decoded: {error}") from error


def _check_canvas(image: bytes, content_type: str) -> None:
    """Of a WebP before it is opened, for its decoder then takes memory for all that the header promises.

    https://developers.google.com/speed/webp/docs/riff_container, RFC 6386 section 9.1, RFC 9649 section 3.4
    """
    if content_type != "image/webp":
        return
    if image[12:16] == b"VP8X":
        width, height = (int.from_bytes(image[at : at + 3], "little") + 1 for at in (24, 27))
    elif image[12:16] == b"VP8L":
        both = int.from_bytes(image[21:25], "little")
        width, height = (both & 0x3FFF) + 1, (both >> 14 & 0x3FFF) + 1
    else:
        width, height = (int.from_bytes(image[at : at + 2], "little") & 0x3FFF for at in (26, 28))
    _check_memory(width, height, width * height * BYTES_A_PIXEL * COPIES_OF_WEBP)


def _check_memory(width: int, height: int, needed_bytes: int) -> None:
    if needed_bytes > MOST_DECODED_BYTES:
        raise ContentRejected(
            "TooManyPixels",
            f"{width} x {height} pixels would take {needed_bytes >> 20} MiB to decode, at most "
            f"{MOST_DECODED_BYTES >> 20} MiB are allowed",
        )


def _to_rgb(picture: "Image.Image") -> "Image.Image":
    """As inference_code decodes: transparency on white, 16 bits to 8."""
    from PIL import Image

    if picture.mode in SIXTEEN_BITS:  # Pillow would clip at 255
        return picture.convert("I").point([value >> 8 for value in range(65536)], "L").convert("RGB")
    if picture.mode in ("I", "F"):
        raise ContentRejected("UnreadableImage", "pixels of 32 bits, of which nothing says what is black and white")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")
