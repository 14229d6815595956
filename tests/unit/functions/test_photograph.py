"""What becomes of each file of the hostile corpus, and the request bodies that are made of images."""

import io
import random
import re
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).parent))
import hostile_corpus as made

sys.path.pop(0)

LIMIT = 6_291_456
SAMPLES = list(made.corpus())
MOST_MIB = 600


@pytest.fixture
def photograph(load):
    return load("classify_image", "photograph")


@pytest.fixture
def body(photograph):
    """The request's body for a file, as the handler makes it."""

    def body(file, short_side_px=512):
        return photograph.body_of(file, sys.modules["content"].type_of(file), LIMIT, short_side_px)

    return body


def endpoint_decodes(body, content_type):
    """As inference_code's decode(): the two formats, at most 64 megapixels, whole; None if it refuses."""
    assert len(body) <= LIMIT
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture = Image.open(io.BytesIO(body), formats=("JPEG", "PNG"))
            assert Image.MIME[picture.format if picture.format != "MPO" else "JPEG"] == content_type
            small_enough = picture.width * picture.height <= 64_000_000
            return ImageOps.exif_transpose(picture).convert("RGB") if small_enough else None
    except AssertionError:
        raise
    except Exception:  # noqa: BLE001 - Pillow's decoders raise whatever a broken file leads them to
        return None


def test_the_corpus_is_large_enough():
    assert len(SAMPLES) >= 160
    assert len({sample.name for sample in SAMPLES}) == len(SAMPLES)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_every_file_gets_the_outcome_that_it_should(sample, body):
    before, started = peak_mib(), time.monotonic()
    rejected = sys.modules["content"].ContentRejected
    try:
        picture = endpoint_decodes(*body(sample.content))
        code = None if picture else "UnreadableImage"
    except rejected as rejection:
        code = rejection.code
    assert code == sample.code
    assert time.monotonic() - started < 60
    assert peak_mib() - before < MOST_MIB


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a picture as AVIF", "an AVIF image"),
        ("a picture as JPEG2000", "a JPEG 2000 image"),
        ("a picture as ICO", "an icon"),
        ("a picture as PPM", "a portable pixmap"),
        ("a picture as EPS", "a PostScript document"),
        ("a picture as PDF", "a PDF document"),
        ("brand heix", "an HEIC image"),
        ("brand avis", "an AVIF image"),
        ("brand qt  ", "a video"),
        ("drawing in xml", "an SVG drawing"),
        ("drawing in utf-16", "an SVG drawing"),
        ("text in another script", "text"),
        ("video in riff", "a video"),
        ("x-ray", "a DICOM image"),
    ],
)
def test_a_rejection_names_what_was_found(body, name, found):
    (file,) = [sample.content for sample in SAMPLES if sample.name == name]
    with pytest.raises(sys.modules["content"].ContentRejected, match=f"found {found}; expected"):
        body(file)


def test_no_rejection_speaks_of_memory_addresses(body):
    with pytest.raises(sys.modules["content"].ContentRejected, match=r"image/gif whose header cannot be read$"):
        body(b"GIF89a")


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "BMP", "TIFF"])
def test_other_formats_are_converted_without_loss(body, kind):
    original = made.photograph()
    options = {"lossless": True} if kind == "WEBP" else {}
    sent, content_type = body(made.encoded(original, kind, **options))
    assert content_type == "image/png"
    if kind != "GIF":
        assert Image.open(io.BytesIO(sent)).tobytes() == original.tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_what_the_endpoint_takes_is_sent_as_it_is(body, kind):
    file = made.encoded(made.photograph(3000, 20), kind)
    assert body(file) == (file, f"image/{kind.lower()}")


@pytest.mark.parametrize("kind", ["WEBP", "TIFF"])
def test_a_converted_image_stands_upright(body, kind):
    picture = Image.open(io.BytesIO(body(made.turned(made.photograph(), kind))[0]))
    assert picture.size == (120, 80)
    red, blue = picture.getpixel((60, 5)), picture.getpixel((10, 60))
    assert red[0] > 150 > red[2]
    assert blue[2] > 150 > blue[0]


def test_transparency_becomes_white(body):
    clear = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    assert Image.open(io.BytesIO(body(made.encoded(clear, "WEBP"))[0])).getpixel((5, 5)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_and_not_clipped(body):
    picture = Image.open(io.BytesIO(body(made.encoded(made.sixteen_bits(), "TIFF"))[0]))
    assert [picture.getpixel((0, row)) for row in (0, 32, 63)] == [(0, 0, 0), (128, 128, 128), (252, 252, 252)]


def test_the_first_frame_of_an_animation_counts(body):
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    file = made.encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(body(file)[0])).getpixel((5, 5)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("kind", "options", "size"),
    [
        ("JPEG", {"quality": 100, "subsampling": 0}, (2400, 1600)),
        ("JPEG", {"quality": 100, "subsampling": 0, "progressive": True}, (2400, 1600)),
        ("PNG", {"compress_level": 1}, (1600, 1800)),
        ("BMP", {}, (1800, 2400)),
    ],
)
def test_what_is_above_the_limit_is_scaled_down_and_no_further_than_it_may(body, kind, options, size, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.MAXBLOCK", 2**25)  # Pillow's estimate is too small for progressive noise
    file = made.encoded(made.noise(*size), kind, **options)
    assert len(file) > LIMIT
    sent, content_type = body(file)
    picture = Image.open(io.BytesIO(sent))
    assert content_type == "image/jpeg"
    assert len(sent) <= LIMIT
    assert min(picture.size) >= 512
    assert picture.width / picture.height == pytest.approx(size[0] / size[1], rel=0.01)


def test_what_is_scaled_down_shows_the_same(body):
    original = made.photograph(3000, 4000)
    picture = Image.open(io.BytesIO(body(made.encoded(original, "BMP") + b"")[0]))
    shown, expected = (p.resize((60, 80), Image.Resampling.BOX) for p in (picture, original))
    for row in range(0, 80, 7):
        for column in range(3, 60, 9):
            pairs = zip(shown.getpixel((column, row)), expected.getpixel((column, row)), strict=True)
            assert all(abs(a - b) < 25 for a, b in pairs)


def test_a_progressive_photograph_too_big_to_hold_is_refused_before_it_is_decoded(body):
    bomb = bytearray(made.encoded(made.photograph(8, 8), "JPEG", progressive=True))
    at = bomb.index(b"\xff\xc2") + 5
    bomb[at : at + 4] = (13_000).to_bytes(2, "big") * 2
    with pytest.raises(sys.modules["content"].ContentRejected, match="TooManyPixels"):
        body(bytes(bomb) + b"\0" * LIMIT)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to its address space")
def test_the_memory_of_the_function_is_enough_for_all_that_is_taken():
    template = (Path(__file__).parents[3] / "template.yaml").read_text()
    (mib,) = re.findall(r"ClassifyImageFunction:.*?MemorySize: (\d+)", template, re.DOTALL)[:1]
    script = Path(__file__).parent / "limited_function.py"
    done = subprocess.run([sys.executable, "-W", "ignore", script, mib], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outcomes = dict(line.split("\t") for line in done.stdout.splitlines())
    assert outcomes.pop("with 4 clients") == "ended"
    assert len([name for name in outcomes if name.startswith("the largest")]) == 5
    for name, outcome in outcomes.items():
        assert outcome in (["image/jpeg"] if name.startswith("the largest") else ["image/png", "TooManyPixels"])


FUZZED = [sample.content for sample in made.classifiable() if len(sample.content) < 50_000]


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(FUZZED), st.integers(0, 2**32), st.integers(1, 12), st.sampled_from([LIMIT, 20]))
def test_a_mutated_file_is_sent_or_rejected_and_never_anything_else(photograph, original, seed, changes, limit):
    """With the limit at 20 bytes each file goes through the decoder that files above the limit go through."""
    chance, file = random.Random(seed), bytearray(original)
    for _ in range(changes):
        at = chance.randrange(len(file))
        match chance.randrange(4):
            case 0:
                file[at] = chance.randrange(256)
            case 1:
                del file[at : at + chance.randrange(1, 20)]
            case 2:
                file[at:at] = chance.randbytes(chance.randrange(1, 20))
            case 3:
                file[at : at + 4] = chance.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
        file = file or bytearray(b"\0")
    mutated = bytes(file)
    try:
        sent, content_type = photograph.body_of(mutated, sys.modules["content"].type_of(mutated), limit, 512)
    except sys.modules["content"].ContentRejected:
        return
    assert content_type in ("image/jpeg", "image/png")
    assert len(sent) <= limit


def peak_mib():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
