"""What a file is, by its first bytes: https://mimesniff.spec.whatwg.org/#matching-an-image-type-pattern"""

CLASSIFIABLE = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
)
BMP_HEADER_SIZES = (12, 40, 52, 56, 64, 108, 124)
"""The fourth field of a BMP, by which it is told from text: https://www.fileformat.info/format/bmp/egff.htm"""
OTHERS = (
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"8BPS", "a Photoshop document"),
    (b"\x00\x00\x01\x00", "an icon"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\x1aE\xdf\xa3", "a Matroska video"),
    (b"ID3", "an MP3 recording"),
    (b"OggS", "an Ogg recording"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
)
MARKUP = (
    (b"<svg", "an SVG drawing"),
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<?xml", "XML"),
)
EXPECTED = "expected a JPEG, PNG, WebP, GIF, BMP or TIFF image"


class ContentRejected(Exception):
    """The object cannot be classified, however often it is tried."""

    def __init__(self, code: str, message: str):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


def type_of(image: bytes) -> str:
    """Return the media type of an image. Raises ContentRejected, which names what was found instead."""
    if not image:
        raise ContentRejected("EmptyObject", f"the object holds no bytes; {EXPECTED}")
    for magic, content_type in CLASSIFIABLE:
        if image.startswith(magic):
            return content_type
    if image.startswith(b"RIFF") and image[8:12] == b"WEBP":
        return "image/webp"
    if image.startswith(b"BM") and int.from_bytes(image[14:18], "little") in BMP_HEADER_SIZES:
        return "image/bmp"
    raise ContentRejected("NotAnImage", f"found {_named(image)}; {EXPECTED}")


def _named(image: bytes) -> str:
    if image[4:8] == b"ftyp":
        brand = image[8:12].decode("latin-1")
        return f"an {brand.upper()} image" if brand in ("avif", "heic", "mif1") else "a video"
    for magic, name in OTHERS:
        if image.startswith(magic):
            return name
    for magic, name in MARKUP:
        if image[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith(magic):
            return name
    try:
        beginning = image[:64].decode("ascii")
    except UnicodeDecodeError:
        beginning = ""
    if beginning and all(character.isprintable() or character.isspace() for character in beginning):
        return "text"
    return f"bytes of no known type, beginning {image[:8].hex(' ')}"
