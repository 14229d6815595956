"""A split's images as arrays: as the network sees them when it serves, or whole, for augmentation to cut from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from data import DatasetError, UnreadableImage, decode, to_square
from PIL import Image
from source import read_image

CACHE_BYTES = 1 << 30  # of pictures: 5,400 squares of 256 px


class Pictures:
    """A split's images, decoded the first time that they are asked for, and kept as long as they fit.

    entries: the manifest's. load: what is kept of an image, an array (H, W, 3) uint8.
    """

    def __init__(
        self,
        root: Path,
        entries: Sequence[Mapping[str, Any]],
        at_least_px: int,
        load: Callable[[Image.Image], np.ndarray],
        cache_bytes: int = CACHE_BYTES,
    ):
        self._root, self._entries = root, entries
        self._at_least_px = at_least_px
        self._load = load
        self._kept: dict[int, np.ndarray] = {}
        self._room = cache_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return an image. Raises DatasetError if it has changed and cannot be read any more."""
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        picture = self.read(index)
        if picture.nbytes <= self._room:
            self._room -= picture.nbytes
            self._kept[index] = picture
        return picture

    def read(self, index: int) -> np.ndarray:
        """Return an image without keeping it: for those who see each once. Raises DatasetError as above."""
        entry = self._entries[index]
        try:
            return self._load(decode(read_image(self._root, entry), at_least_px=self._at_least_px))
        except (OSError, UnreadableImage) as error:
            raise DatasetError(
                f"{entry['path']} could be read when the manifest was written, but now: {error}"
            ) from error


def squares(root: Path, entries: Sequence[Mapping[str, Any]], preprocessing: Mapping[str, Any]) -> Pictures:
    """Return a split's images as the network sees them when it serves, decoded at the scale that serving chooses."""
    return Pictures(root, entries, preprocessing["resize_px"], lambda picture: to_square(picture, preprocessing))


def scaled_pictures(root: Path, entries: Sequence[Mapping[str, Any]], short_px: int) -> Pictures:
    """Return a split's whole images, their short sides scaled to `short_px` at most, for augmentation to cut from."""

    def scale(picture: Image.Image) -> np.ndarray:
        share = min(1.0, short_px / min(picture.size))
        width, height = (max(1, round(side * share)) for side in picture.size)
        return np.array(picture.resize((width, height), Image.Resampling.BILINEAR))

    return Pictures(root, entries, short_px, scale)
