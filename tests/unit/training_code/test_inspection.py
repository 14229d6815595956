"""What is found out about images, and which split they come to."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from data import DatasetError, decode, digest_images
from inspection import assign_splits, inspect_images, list_dataset
from PIL import Image
from source import END_OF_IMAGE

SHARES = {"valid": 0.15, "test": 0.15}


def inspect(dataset: Path, **options: Any) -> tuple[list[dict[str, Any]], dict[str, str]]:
    given = {"cut_px": 32, "truncated": "unreadable", "threads": 2, **options}
    entries, fingerprints, unreadable = inspect_images(dataset, list_dataset(dataset).images, **given)
    assert len(entries) == len(fingerprints)
    return entries, {entry["path"]: entry["reason"].split(" (")[0] for entry in unreadable}


def test_a_data_set_that_cannot_be_trained_on_is_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"there is no folder .*nowhere"):
        list_dataset(tmp_path / "nowhere")
    (dataset / "train/red/notes.txt").touch()
    with pytest.raises(DatasetError, match="1 file that is not an image"):
        list_dataset(dataset)
    (tmp_path / "no.zip").write_bytes(b"PK")
    with pytest.raises(DatasetError, match="is no zip archive"):
        list_dataset(tmp_path / "no.zip")


def test_the_manifest_says_what_an_image_is(dataset: Path) -> None:
    entries, unreadable = inspect(dataset)

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
        "truncated": False,
    }


def test_broken_files_are_named_with_a_reason(dataset: Path) -> None:
    whole = (dataset / "train/red/0.jpg").read_bytes()
    (dataset / "train/red/0.jpg").write_bytes(whole[:-100])
    (dataset / "train/red/1.png").write_bytes(b"")
    Image.new("RGB", (9, 9)).save(dataset / "train/red/2.jpg", "GIF")
    Image.new("RGB", (20_000, 2)).save(dataset / "train/red/3.png")

    entries, unreadable = inspect(dataset, cut_px=224)

    assert len(entries) == 48 - 4
    assert unreadable == {
        "train/red/0.jpg": "image file is truncated",
        "train/red/1.png": "the file is empty",
        "train/red/2.jpg": "neither JPEG nor PNG by its content",
        "train/red/3.png": "20000 x 2 pixels, which is too narrow to be scaled to 224 px",
    }


def test_a_narrow_picture_is_no_trouble_where_the_whole_of_it_is_seen(dataset: Path) -> None:
    Image.new("RGB", (20_000, 2)).save(dataset / "train/red/3.png")
    assert not inspect(dataset, cut_px=None)[1]


@pytest.mark.parametrize("progressive", [False, True])
def test_what_a_truncated_jpeg_lacks_is_filled_in_and_what_it_has_is_kept(progressive: bool) -> None:
    picture = Image.radial_gradient("L").resize((160, 160)).convert("RGB")
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=95, progressive=progressive)
    content = buffer.getvalue()

    half = decode(content[: len(content) // 2] + END_OF_IMAGE)

    assert half.size == (160, 160)
    for place in ((80, 4), (4, 4), (150, 10)):
        known, expected = half.getpixel(place), picture.getpixel(place)
        assert known == pytest.approx(expected, abs=8)


def test_the_data_digest_follows_content_split_and_class(dataset: Path) -> None:
    def digest() -> str:
        return digest_images(inspect(dataset)[0], ["blue", "green", "red"])

    before = digest()
    assert digest() == before
    (dataset / "train/red/0.jpg").rename(dataset / "valid/red/9.jpg")
    moved = digest()
    (dataset / "valid/red/9.jpg").write_bytes((dataset / "train/red/2.jpg").read_bytes())
    assert len({before, moved, digest()}) == 3


def images(number: int, start: int = 0) -> list[dict[str, Any]]:
    """Entries of two classes, in whose digests there is no order."""
    return [
        {
            "path": f"{c}/{i}.jpg",
            "split": "train",
            "class_index": c,
            "sha256": f"{(i * 7919 + c * 104729) % 99991:064}",
            "truncated": False,
        }
        for c in (0, 1)
        for i in range(start, start + number)
    ]


def split_of(entries: list[dict[str, Any]]) -> dict[str, str]:
    return {entry["sha256"]: entry["split"] for entry in entries}


def test_splits_are_stratified_and_depend_on_contents_alone() -> None:
    entries, renamed = images(100), images(100)
    for entry in renamed:
        entry["path"] = f"other{entry['path']}"
    assign_splits(entries, ["a", "b"], ("valid", "test"), SHARES)
    assign_splits(renamed[::-1], ["a", "b"], ("valid", "test"), SHARES)

    for index in (0, 1):
        counts = [entry["split"] for entry in entries if entry["class_index"] == index]
        assert [counts.count(split) for split in ("train", "valid", "test")] == [70, 15, 15]
    assert split_of(entries) == split_of(renamed)


def test_a_few_more_images_move_a_few() -> None:
    before, after = images(100), images(103)
    for entries in (before, after):
        assign_splits(entries, ["a", "b"], ("valid", "test"), SHARES)

    moved = [digest for digest, split in split_of(before).items() if split_of(after)[digest] != split]
    assert len(moved) <= 2 * 2 * 3


def test_a_given_split_is_left_as_it_is_and_every_class_has_one_image_at_least() -> None:
    entries = images(3)
    given = [{**entry, "split": "test", "sha256": "0" * 64} for entry in images(2)]
    assign_splits([*entries, *given], ["a", "b"], ("valid",), SHARES)

    assert [entry["split"] for entry in given] == ["test"] * 4
    assert sorted(entry["split"] for entry in entries) == ["train"] * 4 + ["valid"] * 2


def test_a_class_too_small_to_be_split_is_named() -> None:
    with pytest.raises(DatasetError, match="the class a has 2 images, from which valid and test are to be taken"):
        assign_splits(images(2), ["a", "b"], ("valid", "test"), SHARES)


def test_a_truncated_image_stays_in_train() -> None:
    entries = images(20)
    for entry in entries[:8]:
        entry["truncated"] = True
    assign_splits(entries, ["a", "b"], ("valid", "test"), SHARES)
    assert {entry["split"] for entry in entries if entry["truncated"]} == {"train"}
