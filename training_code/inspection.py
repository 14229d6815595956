"""What PrepareDataset finds out about every image: whether it can be read, what it is, and in which split it stands."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import layout
from data import DatasetError, UnreadableImage, check_shape, decode, read_header
from near_duplicates import FINGERPRINT_PX, Fingerprint, fingerprint
from source import END_OF_IMAGE, list_files, read_file

TRUNCATED = "image file is truncated"  # how Pillow begins its reason


def list_dataset(root: Path) -> layout.Layout:
    """List a data set, sorted by path. Raises DatasetError for a layout that cannot be trained on."""
    if not root.exists():
        raise DatasetError(f"there is no folder {root}")
    try:
        return layout.read_layout(str(root), list_files(root))
    except (OSError, layout.LayoutError) as error:
        raise DatasetError(str(error)) from error


def inspect_images(
    root: Path, images: Sequence[layout.PlacedImage], cut_px: int | None, truncated: str, threads: int
) -> tuple[list[dict[str, Any]], list[Fingerprint], list[dict[str, str]]]:
    """Decode every image; return the manifest's entries of those that can be read, their fingerprints, and the others.

    cut_px: what the short side is scaled to before the centre is cut; None where the whole picture is seen.
    truncated: `train` keeps JPEG files that break off, in train only; `unreadable` counts them among the others.
    """
    with ThreadPoolExecutor(threads) as pool:
        seen = list(pool.map(functools.partial(_inspect, root, cut_px, truncated), images))
    readable = [(entry, print_) for entry, print_ in seen if print_ is not None]
    return (
        [entry for entry, _ in readable],
        [print_ for _, print_ in readable],
        [entry for entry, print_ in seen if print_ is None],
    )


def assign_splits(
    entries: Iterable[dict[str, Any]], classes: Sequence[str], missing: Sequence[str], shares: Mapping[str, float]
) -> None:
    """Move training images to the splits that are not given: of each class its share, those with the lowest digests.

    So the split depends on the contents alone: not on names, on the order, or on a seed; and an image that is added to
    a class of n moves one image across each border at most. Raises DatasetError if a class has too few images.
    """
    by_class: dict[int, list[dict[str, Any]]] = {}
    for entry in entries:
        if entry["split"] == "train":
            by_class.setdefault(entry["class_index"], []).append(entry)
    for index, members in sorted(by_class.items()):
        members.sort(key=lambda entry: (entry["truncated"], entry["sha256"], entry["path"]))
        try:
            taken = layout.share_out(classes[index], len(members), missing, shares)
        except layout.LayoutError as error:
            raise DatasetError(str(error)) from error
        for split in sorted(taken, key=("test", "valid").index):
            for entry in members[: taken[split]]:
                entry["split"] = split
            del members[: taken[split]]


def _inspect(
    root: Path, cut_px: int | None, truncated: str, image: layout.PlacedImage
) -> tuple[dict[str, Any], Fingerprint | None]:
    try:
        content = read_file(root, image.path)
        kind, width, height = read_header(content)
        if cut_px is not None:
            check_shape(width, height, cut_px)
        breaks_off = False
        try:
            picture = decode(content, at_least_px=FINGERPRINT_PX)
        except UnreadableImage as error:
            breaks_off = str(error).startswith(TRUNCATED)
            if not (breaks_off and truncated == "train" and image.split == "train" and kind == "JPEG"):
                raise
            picture = decode(content + END_OF_IMAGE, at_least_px=FINGERPRINT_PX)
    except (OSError, UnreadableImage) as error:
        return {"path": image.path, "reason": str(error)}, None
    entry = {
        "path": image.path,
        "split": image.split,
        "class_index": image.class_index,
        "width_px": width,
        "height_px": height,
        "format": kind,
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "truncated": breaks_off,
    }
    return entry, fingerprint(picture)
