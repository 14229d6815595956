"""Images that stand in two splits, or nearly: what a model has seen in training says nothing of what it can do.

Two images are near-duplicates if their perceptual hashes differ in few bits and their thumbnails in few levels. The
hash (pHash: Zauner 2010, Implementation and Benchmarking of Perceptual Image Hash Functions) stands scaling and another
compression; the thumbnail tells apart what has the same coarse shape, such as two drawings of one digit. Cropped,
mirrored and recoloured copies are not found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

FINGERPRINT_PX = 32
HASH_SIDE = 8
MOST_BITS = 6  # of 64 that may differ
MOST_LEVELS = 4.0  # of 255 by which the thumbnails may differ in the mean
ROWS = 256  # of a split compared at a time: with 10,000 images in the other, 20 MB
PREFERENCE = ("test", "valid", "train")  # which split keeps an image


@dataclass(frozen=True)
class Fingerprint:
    """bits: the perceptual hash; thumbnail: (16, 16, 3) uint8."""

    bits: int
    thumbnail: np.ndarray


def fingerprint(picture: Image.Image) -> Fingerprint:
    """Return what a picture is compared by."""
    small = picture.resize((FINGERPRINT_PX, FINGERPRINT_PX), Image.Resampling.BOX)
    grey = np.asarray(small.convert("L"), dtype=np.float32)
    cosines = _cosines()
    low = (cosines @ grey @ cosines.T).ravel()
    above = low > np.median(low[1:])
    bits = int.from_bytes(np.packbits(above).tobytes(), "big")
    return Fingerprint(bits, np.asarray(small.reduce(2)))


def find_near_duplicates(
    entries: Sequence[dict[str, Any]], fingerprints: Sequence[Fingerprint]
) -> list[dict[str, Any]]:
    """Return the pairs of images of different splits that are near-duplicates, as the manifest has them.

    `path` is the image of the split that can do without it: train before valid, valid before test.
    """
    members = {split: [i for i, entry in enumerate(entries) if entry["split"] == split] for split in PREFERENCE}
    pairs = []
    for position, kept in enumerate(PREFERENCE):
        for other in PREFERENCE[position + 1 :]:
            for one, two in _pairs(members[kept], members[other], fingerprints):
                pairs.append(_described(entries[two], entries[one], fingerprints[two], fingerprints[one]))
    return sorted(pairs, key=lambda pair: (pair["path"], pair["of"]))


def _described(entry: dict[str, Any], of: dict[str, Any], one: Fingerprint, two: Fingerprint) -> dict[str, Any]:
    return {
        "path": entry["path"],
        "split": entry["split"],
        "of": of["path"],
        "of_split": of["split"],
        "identical": entry["sha256"] == of["sha256"],
        "bits": (one.bits ^ two.bits).bit_count(),
        "same_class": entry["class_index"] == of["class_index"],
    }


def _pairs(ones: Sequence[int], twos: Sequence[int], fingerprints: Sequence[Fingerprint]) -> Iterator[tuple[int, int]]:
    if not ones or not twos:
        return
    second = np.array([fingerprints[i].bits for i in twos], dtype=np.uint64)
    ones_set_in = np.array([number.bit_count() for number in range(1 << 16)], dtype=np.uint8)
    for start in range(0, len(ones), ROWS):
        rows = ones[start : start + ROWS]
        first = np.array([fingerprints[i].bits for i in rows], dtype=np.uint64)
        differing = (first[:, None] ^ second[None, :]).view(np.uint16).reshape(len(rows), len(twos), 4)
        near = ones_set_in[differing].sum(axis=2, dtype=np.uint8) <= MOST_BITS
        for row, column in np.argwhere(near):
            one, two = rows[row], twos[column]
            if _levels_between(fingerprints[one], fingerprints[two]) <= MOST_LEVELS:
                yield one, two


def _levels_between(one: Fingerprint, two: Fingerprint) -> float:
    return float(np.abs(one.thumbnail.astype(np.int16) - two.thumbnail).mean())


def _cosines() -> np.ndarray:
    """Return the first rows of the discrete cosine transform (DCT-II), (8, 32)."""
    rows, columns = np.mgrid[0:HASH_SIDE, 0:FINGERPRINT_PX]
    scale = math.pi / FINGERPRINT_PX
    return np.cos(scale * rows * (columns + 0.5)).astype(np.float32)
