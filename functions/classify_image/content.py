"""What a file is, by its first bytes: https://mimesniff.spec.whatwg.org/#matching-an-image-type-pattern"""

CLASSIFIABLE = ((b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"))
OTHERS = (
    (b"GIF8", "a GIF image"),
    (b"BM", "a BMP image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
)


class ContentRejected(Exception):
    """The object cannot be classified, however often it is tried."""

    def __init__(self, code: str, message: str):
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


def type_of(image: bytes) -> str:
    """Return image/jpeg or image/png. Raises ContentRejected, which names what was found instead."""
    if not image:
        raise ContentRejected("EmptyObject", "the object holds no bytes; expected a JPEG or PNG image")
    for magic, content_type in CLASSIFIABLE:
        if image.startswith(magic):
            return content_type
    raise ContentRejected("NotAnImage", f"found {_named(image)}; expected a JPEG or PNG image")


def _named(image: bytes) -> str:
    if image.startswith(b"RIFF") and image[8:12] == b"WEBP":
        return "a WebP image"
    if image[4:12] in (b"ftypavif", b"ftypheic"):
        return f"an {image[8:12].decode().upper()} image"
    for magic, name in OTHERS:
        if image.startswith(magic):
            return name
    try:
        image[:64].decode("ascii")
    except UnicodeDecodeError:
        return f"bytes of no known type, beginning {image[:8].hex(' ')}"
    return "text"
