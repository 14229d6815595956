"""What a file is, by its first bytes: https://mimesniff.spec.whatwg.org/#matching-an-image-type-pattern"""

import codecs

CLASSIFIABLE = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"II+\x00", "image/tiff"),  # BigTIFF
    (b"MM\x00+", "image/tiff"),
)
BMP_HEADER_SIZES = (12, 40, 52, 56, 64, 108, 124)
"""The fourth field of a BMP, by which it is told from text: https://www.fileformat.info/format/bmp/egff.htm"""
OTHERS = (
    (b"%PDF-", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"8BPS", "a Photoshop document"),
    (b"\x00\x00\x01\x00", "an icon"),
    (b"\x00\x00\x02\x00\x01", "a cursor"),
    (b"icns", "an icon"),
    (b"DDS ", "a DirectDraw texture"),
    (b"qoif", "a QOI image"),
    (b"II\xbc\x01", "a JPEG XR image"),
    (b"v/1\x01", "an OpenEXR image"),
    (b"#?RADIANCE", "a Radiance HDR image"),
    (b"P4\n", "a portable bitmap"),
    (b"P5\n", "a portable graymap"),
    (b"P6\n", "a portable pixmap"),
    (b"gimp xcf", "a GIMP document"),
    (b"%!PS", "a PostScript document"),
    (b"{\\rtf", "an RTF document"),
    (b"\xd0\xcf\x11\xe0", "an older Office document"),
    (b"Rar!", "a RAR archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\x1aE\xdf\xa3", "a Matroska video"),
    (b"ID3", "an MP3 recording"),
    (b"OggS", "an Ogg recording"),
    (b"fLaC", "a FLAC recording"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
)
MARKUP = (
    ("<svg", "an SVG drawing"),
    ("<!doctype html", "an HTML page"),
    ("<html", "an HTML page"),
    ("<?xml", "XML"),
)
BRANDS = (
    ((b"avif", b"avis"), "an AVIF image"),
    ((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "an HEIC image"),
    ((b"crx ",), "a Canon raw image"),
)
"""Of the ISO base media format, of which all else is video or sound: https://mp4ra.org/registered-types/brands"""
RIFF = {b"AVI ": "a video", b"WAVE": "a recording"}
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
        return next((name for brands, name in BRANDS if image[8:12] in brands), "a video")
    if image.startswith(b"RIFF") and image[8:12] in RIFF:
        return RIFF[image[8:12]]
    if image[128:132] == b"DICM":
        return "a DICOM image"
    if image[257:262] == b"ustar":
        return "a tar archive"
    for magic, name in OTHERS:
        if image.startswith(magic):
            return name
    if text := _text(image[:512]):
        beginning = text.lstrip().lower()
        if beginning.startswith("<?xml") and "<svg" in beginning:
            return "an SVG drawing"
        return next((name for start, name in MARKUP if beginning.startswith(start)), "text")
    return f"bytes of no known type, beginning {image[:8].hex(' ')}"


def _text(beginning: bytes) -> str | None:
    """Return the beginning of a file as text, None if it is none."""
    encoding = "utf-16" if beginning.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    decoded = codecs.getincrementaldecoder(encoding)()  # the last character may be cut
    try:
        text = decoded.decode(beginning)
    except UnicodeDecodeError:
        return None
    return text if all(character.isprintable() or character.isspace() for character in text) else None
