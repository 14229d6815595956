"""Which pictures count as the same, and which of them can go."""

from __future__ import annotations

import io

import numpy as np
import pytest
from near_duplicates import find_near_duplicates, fingerprint
from PIL import Image, ImageEnhance


def picture(seed: int) -> Image.Image:
    """Smooth colours with coarse shapes, as photographs have them."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((300, 240), Image.Resampling.BICUBIC)


def recompressed(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=60)
    return Image.open(buffer)


ALTERED = {
    "itself": lambda image: image,
    "smaller": lambda image: image.resize((150, 120)),
    "recompressed": recompressed,
    "a little brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.02),
}


def entry(split: str, number: int, sha256: str = "") -> dict[str, object]:
    return {"path": f"{split}/{number}", "split": split, "class_index": 0, "sha256": sha256 or f"{split}{number}"}


@pytest.mark.parametrize("alteration", ALTERED)
def test_copies_are_found_and_others_are_not(alteration: str) -> None:
    entries = [entry("train", number) for number in range(40)] + [entry("test", number) for number in range(20, 60)]
    seen = [fingerprint(picture(number)) for number in range(40)]
    seen += [fingerprint(ALTERED[alteration](picture(number))) for number in range(20, 60)]

    pairs = find_near_duplicates(entries, seen)

    assert [(pair["path"], pair["of"]) for pair in pairs] == sorted(
        (f"train/{number}", f"test/{number}") for number in range(20, 40)
    )


def test_drawings_of_the_same_shape_are_told_apart() -> None:
    one = np.zeros((32, 32), np.uint8)
    one[4:28, 12:20] = 255
    two = one.copy()
    two[4:28, 19:22] = 200
    entries = [entry("train", 1), entry("valid", 2)]
    assert not find_near_duplicates(entries, [fingerprint(Image.fromarray(a).convert("RGB")) for a in (one, two)])


def test_the_more_needed_split_keeps_the_image() -> None:
    entries = [entry("train", 1, "a"), entry("valid", 1, "a"), entry("test", 1, "b"), entry("train", 2, "c")]
    seen = [fingerprint(picture(number)) for number in (1, 1, 1, 2)]

    pairs = find_near_duplicates(entries, seen)

    assert [(pair["path"], pair["of"], pair["identical"]) for pair in pairs] == [
        ("train/1", "test/1", False),
        ("train/1", "valid/1", True),
        ("valid/1", "test/1", False),
    ]
    assert find_near_duplicates([], []) == []
