from __future__ import annotations

import importlib.util
import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from data import (
    DatasetError,
    Squares,
    UnreadableImage,
    decode,
    digest_images,
    inspect_images,
    list_dataset,
    spread_over_classes,
    to_square,
)
from PIL import Image

SERVING_CODE = Path(__file__).parents[3] / "inference_code" / "decoding.py"


def encode(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def test_classes_are_sorted_and_counted_from_zero(dataset: Path) -> None:
    listing = list_dataset(dataset)

    assert listing.classes == ["blue", "green", "red"]
    assert {(i.path.split("/")[1], i.class_index) for i in listing.images} == {("blue", 0), ("green", 1), ("red", 2)}


@pytest.mark.parametrize("name", ["train/.DS_Store", "train/red/Thumbs.db", "README.md", "train/._red/0.jpg"])
def test_files_that_nobody_means_as_images_are_ignored(dataset: Path, name: str) -> None:
    (dataset / name).parent.mkdir(exist_ok=True)
    (dataset / name).write_bytes(b"x")

    assert list_dataset(dataset).ignored == [name]


@pytest.mark.parametrize("name", ["train/red/notes.txt", "valid/stray.jpg", "test/red/more/0.jpg", "train/red/0.webp"])
def test_other_files_are_named(dataset: Path, name: str) -> None:
    (dataset / name).parent.mkdir(exist_ok=True)
    (dataset / name).write_bytes(b"x")

    with pytest.raises(DatasetError, match=f"1 files of the data set .*{name}"):
        list_dataset(dataset)


def test_a_missing_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"there is no folder .*nowhere"):
        list_dataset(tmp_path / "nowhere")


def test_a_missing_split_is_named(dataset: Path) -> None:
    shutil.rmtree(dataset / "valid")

    with pytest.raises(DatasetError, match="has no folder valid"):
        list_dataset(dataset)


def test_a_class_missing_from_a_split_is_named(dataset: Path) -> None:
    shutil.rmtree(dataset / "test" / "green")

    with pytest.raises(DatasetError, match="test/ has no images of 1 of 3 classes: green"):
        list_dataset(dataset)


def test_one_class_is_too_few(dataset: Path) -> None:
    for split in ("train", "valid", "test"):
        shutil.rmtree(dataset / split / "green")
        shutil.rmtree(dataset / split / "red")

    with pytest.raises(DatasetError, match="has 1 classes, at least 2 are needed: blue"):
        list_dataset(dataset)


def test_an_empty_data_set_is_refused(dataset: Path) -> None:
    for split in ("train", "valid", "test"):
        shutil.rmtree(dataset / split)
        (dataset / split).mkdir()

    with pytest.raises(DatasetError, match="has 0 classes"):
        list_dataset(dataset)


def test_the_manifest_says_what_an_image_is(dataset: Path) -> None:
    entries, unreadable = inspect_images(dataset, list_dataset(dataset).images, threads=2)

    assert not unreadable
    assert entries[0] | {"bytes": 0, "sha256": ""} == {
        "path": "test/blue/0.jpg",
        "split": "test",
        "class_index": 0,
        "width_px": 40,
        "height_px": 32,
        "format": "JPEG",
        "bytes": 0,
        "sha256": "",
    }


def test_broken_files_are_named_with_a_reason(dataset: Path) -> None:
    whole = (dataset / "train/red/0.jpg").read_bytes()
    (dataset / "train/red/0.jpg").write_bytes(whole[:-100])
    (dataset / "train/red/1.png").write_bytes(b"")
    (dataset / "train/red/2.jpg").write_bytes(encode(Image.new("RGB", (9, 9)), "GIF"))

    entries, unreadable = inspect_images(dataset, list_dataset(dataset).images, threads=2)

    assert len(entries) == 48 - 3
    assert {entry["path"]: entry["reason"].split(" (")[0] for entry in unreadable} == {
        "train/red/0.jpg": "image file is truncated",
        "train/red/1.png": "the file is empty",
        "train/red/2.jpg": "neither JPEG nor PNG by its content",
    }


def test_the_data_digest_follows_content_split_and_class(dataset: Path) -> None:
    def digest() -> str:
        listing = list_dataset(dataset)
        return digest_images(inspect_images(dataset, listing.images, threads=1)[0], listing.classes)

    before = digest()
    assert digest() == before
    (dataset / "train/red/0.jpg").rename(dataset / "valid/red/9.jpg")
    moved = digest()
    (dataset / "valid/red/9.jpg").write_bytes((dataset / "train/red/2.jpg").read_bytes())
    assert len({before, moved, digest()}) == 3


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
    plain = {"resize_px": 32, "image_size_px": 32, "interpolation": "bilinear", "mean": [0] * 3, "std": [1] * 3}

    served = (serving.preprocess(content, plain) * 255).round().transpose(1, 2, 0)
    np.testing.assert_allclose(served, to_square(decode(content, at_least_px=32), 32, 32), atol=2)


def test_a_jpeg_at_reduced_scale_is_nearly_the_same_square() -> None:
    x, y = np.meshgrid(np.linspace(0, 255, 800), np.linspace(0, 255, 600))
    content = encode(Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8)), "JPEG", quality=95)

    reduced, whole = decode(content, at_least_px=128), decode(content)

    assert reduced.size == (200, 150)
    assert whole.size == (800, 600)
    difference = to_square(reduced, 64, 64).astype(int) - to_square(whole, 64, 64)
    assert np.abs(difference).max() <= 6


def test_squares_are_the_same_kept_or_not(dataset: Path) -> None:
    entries, _ = inspect_images(dataset, list_dataset(dataset).images, threads=1)
    kept = Squares(dataset, entries, 16, threads=2)
    loose = Squares(dataset, entries, 16, threads=2, cache_bytes=0)
    batches = [[0, 5, 7], [40], [3, 2]]

    assert (kept.kept, loose.kept) == (True, False)
    for one, other in zip(kept.batches(batches), loose.batches(batches), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.shape[1:] == (16, 16, 3)


def test_an_image_lost_after_the_manifest_is_named(dataset: Path) -> None:
    entries, _ = inspect_images(dataset, list_dataset(dataset).images, threads=1)
    (dataset / entries[3]["path"]).unlink()

    with pytest.raises(DatasetError, match=entries[3]["path"]):
        Squares(dataset, entries, 16, threads=2)


def test_a_choice_is_spread_over_the_classes() -> None:
    entries = [{"path": f"{c}/{i}", "class_index": c} for c in range(5) for i in range(3)]

    assert [entry["class_index"] for entry in spread_over_classes(entries, 7)] == [0, 1, 2, 3, 4, 0, 1]
    assert [entry["class_index"] for entry in spread_over_classes(entries, 2)] == [0, 2]
    assert len(spread_over_classes(entries, 100)) == 15
    assert spread_over_classes([], 3) == []
