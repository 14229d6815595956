"""Files as they are dropped into an inbox: good ones of every kind, broken ones, and ones that mean harm.

Each is generated here, small, and says what is to come of it: the status and the reason's code.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image, ImageDraw

BOMB_SIDE_PX = 50_000


@dataclass(frozen=True)
class Sample:
    name: str
    content: bytes
    code: str | None
    """Of the rejection; None if it is to be classified."""


def corpus() -> Iterator[Sample]:
    yield from classifiable()
    yield from rejected()
    yield from cut_off()
    yield from bombs()
    yield from other_formats()


def classifiable() -> Iterator[Sample]:
    photo, small = photograph(), photograph(40, 30)
    yield Sample("jpeg", encoded(photo, "JPEG"), None)
    yield Sample("jpeg progressive", encoded(photo, "JPEG", progressive=True), None)
    yield Sample("jpeg cmyk", encoded(photo.convert("CMYK"), "JPEG"), None)
    yield Sample("jpeg grey", encoded(photo.convert("L"), "JPEG"), None)
    yield Sample("jpeg turned", turned(photo, "JPEG"), None)
    yield Sample("jpeg with a tail", encoded(photo, "JPEG") + b"\0" * 100, None)
    yield Sample("jpeg of several pictures", encoded(small, "MPO", save_all=True, append_images=[small]), None)
    yield Sample("jpeg with a page behind it", encoded(photo, "JPEG") + b"<script>alert(1)</script>%PDF-1.7", None)
    yield Sample("jpeg with a broken exif", segment(encoded(photo, "JPEG"), b"Exif\0\0" + b"\xff" * 60_000), None)
    yield Sample("jpeg with 80 exifs", segment(encoded(photo, "JPEG"), b"Exif\0\0MM\0*\0\0\0\x08" * 4000, 80), None)
    yield Sample("jpeg of one pixel", encoded(Image.new("L", (1, 1)), "JPEG"), None)
    yield Sample("jpeg of 65,500 rows", encoded(Image.new("L", (40, 65_500)), "JPEG"), None)
    yield Sample("png", encoded(photo, "PNG"), None)
    yield Sample("png palette", encoded(photo.convert("P"), "PNG"), None)
    yield Sample("png palette transparent", encoded(photo.convert("P"), "PNG", transparency=0), None)
    yield Sample("png alpha", encoded(photo.convert("RGBA"), "PNG"), None)
    yield Sample("png grey alpha", encoded(photo.convert("LA"), "PNG"), None)
    yield Sample("png 16 bit", encoded(sixteen_bits(), "PNG"), None)
    yield Sample("png 1 bit", encoded(photo.convert("1"), "PNG"), None)
    yield Sample("png 16 bit colour", sixteen_bit_colour(), None)
    yield Sample("png interlaced", interlaced(), None)
    yield Sample("png animated", encoded(small, "PNG", save_all=True, append_images=[small.rotate(90)]), None)
    yield Sample("png with a zip behind it", encoded(photo, "PNG") + b"PK\x03\x04" * 99, None)
    yield Sample("png of one pixel", encoded(Image.new("RGB", (1, 1)), "PNG"), None)
    yield Sample("webp", encoded(photo, "WEBP"), None)
    yield Sample("webp lossless alpha", encoded(photo.convert("RGBA"), "WEBP", lossless=True), None)
    yield Sample("webp animated", encoded(small, "WEBP", save_all=True, append_images=[small.rotate(90)]), None)
    yield Sample("gif", encoded(photo, "GIF"), None)
    yield Sample("gif animated", encoded(small, "GIF", save_all=True, append_images=[small.rotate(180)]), None)
    yield Sample("gif transparent", encoded(photo.convert("P"), "GIF", transparency=0), None)
    yield Sample("bmp", encoded(photo, "BMP"), None)
    yield Sample("bmp run lengths", run_lengths(), None)
    yield Sample("bmp top down", bmp_header(2, -2) + b"\xff" * 16, None)
    yield Sample("bmp palette", encoded(photo.convert("P"), "BMP"), None)
    yield Sample("tiff", encoded(photo, "TIFF"), None)
    yield Sample("tiff 1 bit", encoded(photo.convert("1"), "TIFF"), None)
    yield Sample("tiff of pages", encoded(photo, "TIFF", save_all=True, append_images=[small]), None)
    yield Sample("tiff lab", encoded(photo.convert("LAB"), "TIFF"), None)
    yield Sample("tiff big", encoded(photo, "TIFF", big_tiff=True), None)
    yield Sample("tiff lzw", encoded(photo, "TIFF", compression="tiff_lzw"), None)
    yield Sample("tiff jpeg", encoded(photo, "TIFF", compression="jpeg"), None)
    yield Sample("tiff cmyk", encoded(photo.convert("CMYK"), "TIFF"), None)
    yield Sample("tiff 16 bit", encoded(sixteen_bits(), "TIFF"), None)
    yield Sample("tiff fax", encoded(photo.convert("1"), "TIFF", compression="group4"), None)


def rejected() -> Iterator[Sample]:
    photo = photograph()
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        whole = encoded(photo, kind)
        yield Sample(f"{kind} cut in half", whole[: len(whole) // 2], "UnreadableImage")
        yield Sample(f"{kind} cut after 30 bytes", whole[:30], "UnreadableImage")
    for width, height in ((0, 0), (0, 10), (2**32 - 1, 2**32 - 1)):
        yield Sample(f"png of {width} x {height}", png_header(width, height), "UnreadableImage")
    yield Sample("jpeg of 0 x 0", jpeg_header(0, 0), "UnreadableImage")
    yield Sample("jpeg of restarts only", b"\xff\xd8" + b"\xff\xd0" * 1000, "UnreadableImage")
    yield Sample("jpeg of three bytes", b"\xff\xd8\xff", "UnreadableImage")
    yield Sample("tiff of 0 x 0", tiff_header(0, 0), "UnreadableImage")
    yield Sample("gif that is a script", b"GIF89a/*" + b"*/=1;alert(1)", "UnreadableImage")
    yield Sample("png bomb", png_header(BOMB_SIDE_PX, BOMB_SIDE_PX), "UnreadableImage")
    yield Sample("jpeg bomb", jpeg_header(BOMB_SIDE_PX, BOMB_SIDE_PX), "UnreadableImage")
    yield Sample("gif bomb", gif_header(BOMB_SIDE_PX, BOMB_SIDE_PX), "TooManyPixels")
    yield Sample("bmp bomb", bmp_header(BOMB_SIDE_PX, BOMB_SIDE_PX), "TooManyPixels")
    yield Sample("webp bomb", webp_header(BOMB_SIDE_PX, BOMB_SIDE_PX), "TooManyPixels")
    yield Sample("tiff bomb", tiff_header(BOMB_SIDE_PX, BOMB_SIDE_PX), "TooManyPixels")
    yield Sample("webp of 100 megapixels", webp_header(10_000, 10_000), "TooManyPixels")
    yield Sample("tiff of 32-bit floats", encoded(photo.convert("F"), "TIFF"), "UnreadableImage")
    yield Sample("tiff that points at itself", b"II*\0\x08\0\0\0\0\0\x08\0\0\0", "UnreadableImage")
    yield Sample("nothing", b"", "EmptyObject")
    yield Sample("text", b"hello", "NotAnImage")
    yield Sample("text that begins as a bitmap", b"BMW drivers are not images of anything at all", "NotAnImage")
    yield Sample("html", b"<!DOCTYPE html><html></html>", "NotAnImage")
    yield Sample("svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "NotAnImage")
    yield Sample("pdf", b"%PDF-1.7", "NotAnImage")
    yield Sample("zip", b"PK\x03\x04", "NotAnImage")
    yield Sample("gzip", b"\x1f\x8b\x08", "NotAnImage")
    yield Sample("heic", b"\0\0\0\x1cftypheic", "NotAnImage")
    yield Sample("video", b"\0\0\0\x1cftypisom", "NotAnImage")
    yield Sample("photoshop", b"8BPS\0\x01", "NotAnImage")
    yield Sample("program", b"\x7fELF\x02", "NotAnImage")
    yield Sample("zeros", b"\0" * 1000, "NotAnImage")
    yield Sample("no type", b"\0\x01\xfe\xff", "NotAnImage")
    yield Sample("first byte of a jpeg", b"\xff", "NotAnImage")


def cut_off() -> Iterator[Sample]:
    """At every tenth: nothing of it is guessed."""
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        whole = encoded(photograph(), kind)
        for tenths in range(1, 10):
            yield Sample(f"{kind} cut at {tenths} tenths", whole[: len(whole) * tenths // 10], "UnreadableImage")
    progressive = encoded(photograph(), "JPEG", progressive=True)
    yield Sample("progressive jpeg cut after a scan", progressive[: len(progressive) // 2], "UnreadableImage")


def bombs() -> Iterator[Sample]:
    """Small files that promise, or become, much."""
    packed, photo = zlib.compress(b"\0" * 2**27, 9), encoded(photograph(), "PNG")
    for kind, header in ((b"zTXt", b"k\0\0"), (b"iCCP", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0")):
        swollen = photo[:33] + chunk(kind, header + packed) + photo[33:]
        yield Sample(f"png with a bomb in {kind.decode()}", swollen, "UnreadableImage")
    many = chunk(b"zTXt", b"k\0\0" + zlib.compress(b"\0" * 900_000)) * 90
    yield Sample("png with many texts", photo[:33] + many + photo[33:], "UnreadableImage")
    yield Sample("webp of 16,383 x 16,383", webp_lossy_header(16_383, 16_383), "TooManyPixels")
    yield Sample("webp without loss of 16,383 x 16,383", webp_lossless_header(16_383, 16_383), "TooManyPixels")
    yield Sample("bmp of -50,000 rows", bmp_header(BOMB_SIDE_PX, -BOMB_SIDE_PX), "TooManyPixels")
    yield Sample("tiff of 65,535 x 65,535", tiff_header(65_535, 65_535), "TooManyPixels")
    yield Sample(
        "tiff fax of 196 megapixels",
        encoded(Image.new("1", (14_000, 14_000)), "TIFF", compression="group4"),
        "TooManyPixels",
    )
    yield Sample("gif canvas of 64 megapixels", gif_header(8000, 8000), "TooManyPixels")


def other_formats() -> Iterator[Sample]:
    photo = photograph()
    for kind in ("ICO", "ICNS", "JPEG2000", "AVIF", "PPM", "PCX", "DDS", "EPS", "SGI", "QOI", "TGA", "PDF"):
        yield Sample(f"a picture as {kind}", encoded(photo.resize((64, 64)), kind), "NotAnImage")
    for brand in ("heic", "heix", "mif1", "avis", "mp42", "qt  ", "crx "):
        yield Sample(f"brand {brand}", b"\0\0\0\x18ftyp" + brand.encode() + b"\0" * 12, "NotAnImage")
    yield Sample("drawing in xml", b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "NotAnImage")
    yield Sample("drawing in utf-16", '<svg xmlns="http://www.w3.org/2000/svg"/>'.encode("utf-16"), "NotAnImage")
    yield Sample("text in another script", "это не изображение 这不是图像".encode(), "NotAnImage")
    yield Sample("video in riff", b"RIFF\0\0\0\0AVI LIST", "NotAnImage")
    yield Sample("sound in riff", b"RIFF\0\0\0\0WAVEfmt ", "NotAnImage")
    yield Sample("x-ray", b"\0" * 128 + b"DICM", "NotAnImage")


def photograph(width: int = 120, height: int = 80) -> Image.Image:
    """A picture with an up and a left: red above, a blue square on the left below."""
    picture = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, width, height // 4), fill=(200, 10, 10))
    draw.rectangle((0, height // 2, width // 4, height), fill=(10, 10, 200))
    return picture


def noise(width: int, height: int) -> Image.Image:
    """What compresses badly."""
    return Image.merge("RGB", [Image.effect_noise((width, height), 90) for _ in range(3)])


def sixteen_bits() -> Image.Image:
    picture = Image.new("I;16", (64, 64))
    picture.frombytes(struct.pack("<4096H", *(row * 1024 for row in range(64) for _ in range(64))))
    return picture


def turned(picture: Image.Image, kind: str) -> bytes:
    """Stored lying on its side, with the EXIF orientation that sets it up again."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture.transpose(Image.Transpose.ROTATE_90), kind, exif=exif)


def encoded(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def segment(jpeg: bytes, content: bytes, times: int = 1) -> bytes:
    """A JPEG with an APP1 segment put before the others."""
    return jpeg[:2] + (b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content) * times + jpeg[2:]


def chunk(kind: bytes, content: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_header(width: int, height: int, bits: int = 8, interlace: int = 0, rows: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, interlace))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def sixteen_bit_colour() -> bytes:
    return png_header(16, 16, bits=16, rows=(b"\0" + b"\x80\x01" * 48) * 16)


def interlaced() -> bytes:
    """Adam7 of 8 x 8 pixels: seven passes of so many rows of so many pixels."""
    passes = ((1, 1), (1, 1), (1, 2), (2, 2), (2, 4), (4, 4), (4, 8))
    rows = b"".join((b"\0" + b"\x40\x80\xc0" * pixels) * rows for rows, pixels in passes)
    return png_header(8, 8, interlace=1, rows=rows)


def run_lengths() -> bytes:
    """A BMP of 64 x 64 pixels in RLE8: each row one run."""
    rows = b"".join(bytes([64, row]) + b"\0\0" for row in range(64)) + b"\0\1"
    palette = b"".join(bytes([grey, grey, grey, 0]) for grey in range(256))
    header = struct.pack("<IiiHHIIiiII", 40, 64, 64, 1, 8, 1, len(rows), 0, 0, 256, 256)
    return b"BM" + struct.pack("<IHHI", 1078 + len(rows), 0, 0, 1078) + header + palette + rows


def jpeg_header(width: int, height: int) -> bytes:
    whole = bytearray(encoded(photograph(8, 8), "JPEG"))
    at = whole.index(b"\xff\xc0") + 5
    whole[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(whole)


def gif_header(width: int, height: int) -> bytes:
    whole = bytearray(encoded(photograph(8, 8), "GIF"))
    whole[6:10] = struct.pack("<HH", width, height)
    return bytes(whole)


def bmp_header(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, *[0] * 6)


def webp_header(width: int, height: int) -> bytes:
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    frame = encoded(photograph(8, 8), "WEBP")[12:]
    chunks = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + canvas + frame
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def webp_lossy_header(width: int, height: int) -> bytes:
    whole = bytearray(encoded(photograph(8, 8), "WEBP"))
    whole[26:30] = struct.pack("<HH", width, height)
    return bytes(whole)


def webp_lossless_header(width: int, height: int) -> bytes:
    whole = bytearray(encoded(photograph(8, 8), "WEBP", lossless=True))
    whole[21:25] = struct.pack("<I", (width - 1) | (height - 1) << 14)
    return bytes(whole)


def tiff_header(width: int, height: int) -> bytes:
    entries = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height), (279, 1)]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + directory + b"\0\0\0\0"
