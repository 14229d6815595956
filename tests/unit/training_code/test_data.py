from __future__ import annotations

import importlib.util
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data import DatasetError, UnreadableImage, decode, read_header, spread_over_classes, to_square
from pictures import Pictures, scaled_pictures, squares
from PIL import Image

SERVING_CODE = Path(__file__).parents[3] / "inference_code" / "decoding.py"


def encode(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def test_an_image_is_turned_upright() -> None:
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :20] = 255  # white on the left, which EXIF says is the top
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate 90 degrees clockwise to see it
    picture = decode(encode(Image.fromarray(pixels), "JPEG", exif=exif, quality=95))

    assert picture.size == (20, 40)
    assert np.asarray(picture)[2].mean() > 250
    assert np.asarray(picture)[-2].mean() < 5


def test_every_mode_becomes_rgb() -> None:
    grey = Image.fromarray(np.full((8, 8), 128, np.uint8))
    deep = Image.fromarray(np.full((8, 8), 128 << 8, np.uint16))
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    palette = Image.new("RGB", (8, 8), (255, 0, 0)).quantize(4)
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))

    assert decode(encode(grey)).getpixel((0, 0)) == (128, 128, 128)
    assert decode(encode(deep)).getpixel((0, 0)) == (128, 128, 128)
    assert decode(encode(clear)).getpixel((0, 0)) == (255, 255, 255)
    assert decode(encode(palette)).getpixel((0, 0)) == (255, 0, 0)
    red, green, blue = decode(encode(cmyk, "JPEG", quality=95)).getpixel((0, 0))
    assert red > 240
    assert max(green, blue) < 20


def test_an_image_of_too_many_pixels_is_unreadable() -> None:
    with pytest.raises(UnreadableImage, match="9000 x 9000 pixels"):
        decode(encode(Image.new("1", (9000, 9000))))


@pytest.mark.parametrize("size", [(40, 32), (32, 41), (33, 33), (8, 8), (300, 50), (127, 64)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_preprocessing_is_the_serving_codes(size: tuple[int, int], kind: str) -> None:
    specification = importlib.util.spec_from_file_location("serving", SERVING_CODE)
    assert specification is not None
    serving = importlib.util.module_from_spec(specification)
    assert specification.loader is not None
    sys.modules["serving"] = serving
    specification.loader.exec_module(serving)
    generator = np.random.default_rng(0)
    content = encode(Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)), kind)
    plain = {**preprocessing(32), "interpolation": "bilinear", "std": [1] * 3}

    served = (serving.preprocess(content, plain) * 255).round().transpose(1, 2, 0)
    np.testing.assert_array_equal(served, to_square(decode(content, at_least_px=32), plain))


def test_a_picture_too_narrow_to_be_scaled_is_unreadable_as_it_is_to_the_serving_code() -> None:
    ribbon = Image.new("RGB", (20_000, 2))
    assert to_square(ribbon, preprocessing(64)).shape == (64, 64, 3)
    with pytest.raises(UnreadableImage, match="20000 x 2 pixels, which is too narrow to be scaled to 224 px"):
        to_square(ribbon, preprocessing(224))


def test_a_jpeg_with_a_second_picture_is_a_jpeg() -> None:
    first, second = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (20, 15), "blue")
    content = encode(first, "MPO", save_all=True, append_images=[second])
    with Image.open(io.BytesIO(content)) as opened:
        assert opened.format == "MPO"
    assert read_header(content) == ("JPEG", 40, 30)
    assert decode(content).getpixel((5, 5)) == pytest.approx((254, 0, 0), abs=2)


def test_the_header_says_what_a_file_is() -> None:
    assert read_header(encode(Image.new("L", (9, 5)), "JPEG")) == ("JPEG", 9, 5)
    for content, said in ((b"", "the file is empty"), (b"GIF89a", "neither JPEG nor PNG by its content")):
        with pytest.raises(UnreadableImage, match=said):
            read_header(content)


def test_a_jpeg_at_reduced_scale_is_nearly_the_same_square() -> None:
    x, y = np.meshgrid(np.linspace(0, 255, 800), np.linspace(0, 255, 600))
    content = encode(Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8)), "JPEG", quality=95)

    reduced, whole = decode(content, at_least_px=128), decode(content)

    assert reduced.size == (200, 150)
    assert whole.size == (800, 600)
    difference = to_square(reduced, preprocessing(64)).astype(int) - to_square(whole, preprocessing(64))
    assert np.abs(difference).max() <= 6


def entries_of(dataset: Path) -> list[dict[str, str]]:
    return [{"path": path.relative_to(dataset).as_posix()} for path in sorted(dataset.rglob("*.*"))]


def test_a_padded_square_shows_all_of_a_picture_and_the_mean_around_it() -> None:
    picture = Image.new("RGB", (30, 90), (255, 0, 0))

    square = to_square(picture, preprocessing(60, "pad") | {"mean": [0.5, 0.5, 0.5]})

    assert (square[:, 20:40] == (255, 0, 0)).all()
    assert (square[:, :20] == 128).all()
    assert (square[:, 40:] == 128).all()


def test_pictures_are_the_same_kept_or_not(dataset: Path) -> None:
    entries = entries_of(dataset)
    kept = squares(dataset, entries, preprocessing(16))
    loose = Pictures(dataset, entries, 32, lambda picture: to_square(picture, preprocessing(16)), cache_bytes=0)
    first = kept[5]

    np.testing.assert_array_equal(first, loose[5])
    assert first.shape == (16, 16, 3)
    (dataset / entries[5]["path"]).unlink()
    assert kept[5] is first
    with pytest.raises(DatasetError, match=entries[5]["path"]):
        loose[5]


def test_pictures_to_cut_from_are_whole_and_never_enlarged(dataset: Path) -> None:
    entries = entries_of(dataset)

    assert scaled_pictures(dataset, entries, 16)[0].shape == (16, 20, 3)
    assert scaled_pictures(dataset, entries, 64)[0].shape == (32, 40, 3)


def preprocessing(size_px: int, fit: str = "crop") -> dict[str, Any]:
    return {"resize_px": size_px, "image_size_px": size_px, "fit": fit, "mean": [0.0] * 3}


def test_a_choice_is_spread_over_the_classes() -> None:
    entries = [{"path": f"{c}/{i}", "class_index": c} for c in range(5) for i in range(3)]

    assert [entry["class_index"] for entry in spread_over_classes(entries, 7)] == [0, 1, 2, 3, 4, 0, 1]
    assert [entry["class_index"] for entry in spread_over_classes(entries, 2)] == [0, 2]
    assert len(spread_over_classes(entries, 100)) == 15
    assert spread_over_classes([], 3) == []
