"""A data set's layout: which files are its images, of which class and in which split, by their names alone.

A data set is a folder or one zip archive. It holds `<split>/<class>/<image>`, with train/ and, where they are given,
valid/ (or val/, validation/) and test/; or, without any split, `<class>/<image>`. All of it may stand in one more
folder, as in dogImages.zip. Splits that are not given are taken out of the training images by `share_out`.

PlanRun and the command carry this module by links, so that all three say the same of a data set. It opens no image.
"""

from __future__ import annotations

import stat
import struct
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

SPLITS = ("train", "valid", "test")
SPLIT_OF_FOLDER = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
ARCHIVE_SUFFIX = ".zip"
LEFT_BY_FILE_MANAGERS = ("thumbs.db", "desktop.ini", "__macosx")
COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
MOST_FILES = 250_000  # which the memory of PlanRun is for
LARGEST_RATIO = 20  # of an archive's contents to itself: images hardly shrink
ALWAYS_ACCEPTED_BYTES = 1 << 30  # of contents, whatever the ratio
END_OF_ARCHIVE, LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x07"  # APPNOTE.TXT 4.3.16 and 4.3.15
LONGEST_END = 20 + 22 + 65_535  # of an archive: a locator, the end itself and a comment
EXPECTED = "<split>/<class>/<image> with train/, valid/ and test/, or <class>/<image>"


class LayoutError(Exception):
    """The data set cannot be trained on. The message says what was found and what was expected."""


@dataclass(frozen=True, slots=True)
class File:
    """path: below the data set's folder or in its archive, with forward slashes."""

    path: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class PlacedImage:
    """A file that should be an image."""

    path: str
    split: str
    class_index: int


@dataclass(frozen=True)
class Layout:
    """missing: the splits that are not given; their images are still among train's."""

    classes: list[str]
    images: list[PlacedImage]
    missing: tuple[str, ...]
    ignored: list[str]


def read_layout(where: str, files: Iterable[File]) -> Layout:
    """Return what the files' names say, sorted by path. where: for messages, such as s3://bucket/dogs/.

    Raises LayoutError for a layout that cannot be trained on.
    """
    listed = sorted(file.path for file in files)
    refuse_too_many(where, len(listed))
    meant = [path for path in listed if not is_hidden(path)]
    images = [path for path in meant if _is_image(path)]
    if not images:
        raise LayoutError(f"{where} holds no images: expected {EXPECTED}")
    depth = _depth_of_wrapping(images)
    _refuse(
        where,
        [path for path in meant if not _is_image(path) and len(_parts(path)) > depth + 1],
        "not an image (.jpg, .jpeg or .png)",
    )
    if all(len(_parts(path)) - depth == 1 for path in images):
        raise LayoutError(f"{where} holds images, but no folder for each class: expected {EXPECTED}")
    has_splits = any(len(_parts(path)) - depth > 2 for path in images)
    if has_splits:
        placed = _by_split(where, images, depth)
    else:
        _refuse(where, [path for path in images if len(_parts(path)) - depth != 2], "not at <class>/<image>")
        placed = [("train", _parts(path)[depth], path) for path in images]
    classes = _classes(where, placed)
    index = {name: position for position, name in enumerate(classes)}
    used = set(images)
    return Layout(
        classes,
        [PlacedImage(path, split, index[name]) for split, name, path in placed],
        tuple(split for split in SPLITS if split not in {split for split, _, _ in placed}),
        [path for path in listed if path not in used],
    )


def refuse_too_many(where: str, files: int) -> None:
    """Raise LayoutError where there are so many files, or more."""
    if files > MOST_FILES:
        raise LayoutError(
            f"{where} holds more than {MOST_FILES} files, and no more are accepted: take some out and start again"
        )


def refuse_empty_files(where: str, files: Iterable[File]) -> None:
    """Raise LayoutError if an image is empty."""
    empty = (file.path for file in files if file.size_bytes == 0 and _is_image(file.path) and not is_hidden(file.path))
    _refuse(where, sorted(empty), "empty")


def count_by_split(layout: Layout, shares: Mapping[str, float]) -> dict[str, dict[str, int]]:
    """Return the number of images by split, then by class, as they will be. Raises LayoutError as share_out does."""
    counted = Counter((image.split, image.class_index) for image in layout.images)
    counts = {split: {c: counted[split, i] for i, c in enumerate(layout.classes)} for split in SPLITS}
    for name in layout.classes:
        taken = share_out(name, counts["train"][name], layout.missing, shares)
        for split, number in taken.items():
            counts[split][name] = number
            counts["train"][name] -= number
    return counts


def share_out(name: str, images: int, missing: Sequence[str], shares: Mapping[str, float]) -> dict[str, int]:
    """Return how many of a class's training images go to each missing split: its share, and at least one.

    Raises LayoutError if none would be left to train on.
    """
    taken = {split: max(1, round(images * shares[split])) for split in missing}
    if images - sum(taken.values()) < 1:
        has = "1 image" if images == 1 else f"{images} images"
        raise LayoutError(
            f"the class {name} has {has}, from which {' and '.join(missing)} are to be taken: "
            f"it needs at least {len(missing) + 1}, or the splits given as train/, valid/ and test/"
        )
    return taken


def find_archive(where: str, files: Iterable[File]) -> File | None:
    """Return the one archive that the files are, or None if they are something else. Raises LayoutError for several."""
    meant = [file for file in files if not is_hidden(file.path)]
    archives = [file for file in meant if file.path.lower().endswith(ARCHIVE_SUFFIX) and "/" not in file.path]
    if not archives or any(_is_image(file.path) for file in meant):
        return None
    if len(archives) > 1:
        raise LayoutError(f"{where} holds {len(archives)} archives, {_some([a.path for a in archives])}: name one")
    return archives[0]


def read_members(where: str, file: BinaryIO, size_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """Return the files of an archive, which has so many bytes, by their paths.

    Raises LayoutError if it is none, and for what no honest archive of images has: paths that lead out of it, links,
    passwords, two files of one name, or contents that are far larger than itself.
    """
    refuse_too_many(where, _members_said(file, size_bytes) // 2)  # folders are members, too
    try:
        with zipfile.ZipFile(file) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
    except zipfile.BadZipFile as error:
        raise LayoutError(f"{where} is no zip archive: {error}") from error
    refuse_too_many(where, len(infos))
    _refuse(where, [i.filename for i in infos if not _stays_inside(i.filename)], "named so as to lie outside of it")
    _refuse(where, [i.filename for i in infos if stat.S_ISLNK(i.external_attr >> 16)], "linked elsewhere")
    _refuse(where, [i.filename for i in infos if i.flag_bits & 1], "encrypted")
    _refuse(where, [i.filename for i in infos if i.compress_type not in COMPRESSIONS], "neither stored nor deflated")
    again = [name for name, number in Counter(info.filename for info in infos).items() if number > 1]
    _refuse(where, again, "there more than once")
    contents = sum(info.file_size for info in infos)
    if contents > max(ALWAYS_ACCEPTED_BYTES, LARGEST_RATIO * size_bytes):
        raise LayoutError(
            f"{where} has {size_bytes} bytes and unpacks to {contents}, more than {LARGEST_RATIO} times as many: "
            "images do not shrink like that"
        )
    return {info.filename: info for info in infos}


def _members_said(file: BinaryIO, size_bytes: int) -> int:
    """Return how many members an archive says that it has, 0 if it is none.

    zipfile reads the directory of all of them into memory before it tells.
    """
    file.seek(max(0, size_bytes - LONGEST_END))
    tail = file.read(LONGEST_END)
    at = tail.rfind(END_OF_ARCHIVE)
    if at < 0 or len(tail) < at + 22:
        return 0
    (members,) = struct.unpack_from("<H", tail, at + 10)
    if members == 0xFFFF and at >= 20 and tail.startswith(LOCATOR_64, at - 20):
        file.seek(*struct.unpack_from("<Q", tail, at - 12))
        record = file.read(40)  # APPNOTE.TXT 4.3.14
        (members,) = struct.unpack_from("<Q", record, 32) if len(record) == 40 else (0,)
    return int(members)


def is_hidden(path: str) -> bool:
    """Hidden files, and what file managers leave."""
    return any(part.startswith(".") or part.lower() in LEFT_BY_FILE_MANAGERS for part in path.split("/"))


def _depth_of_wrapping(images: Sequence[str]) -> int:
    """Return how many folders stand around the splits or classes."""
    depth = 0
    while True:
        around = {_parts(path)[depth] for path in images}
        if len(around) > 1 or min(len(_parts(path)) for path in images) - depth < 3:
            return depth
        if next(iter(around)).lower() in SPLIT_OF_FOLDER:
            return depth
        depth += 1


def _by_split(where: str, images: Sequence[str], depth: int) -> list[tuple[str, str, str]]:
    found = sorted({_parts(path)[depth] for path in images if len(_parts(path)) > depth + 1})
    if "train" not in {SPLIT_OF_FOLDER.get(folder.lower()) for folder in found}:
        raise LayoutError(f"{where} has no folder train/: found {_some([f'{f}/' for f in found])}; expected {EXPECTED}")
    outside = [path for path in images if _parts(path)[depth].lower() not in SPLIT_OF_FOLDER]
    _refuse(where, outside, "outside of train/, valid/ and test/")
    _refuse(where, [path for path in images if len(_parts(path)) - depth != 3], "not at <split>/<class>/<image>")
    return [(SPLIT_OF_FOLDER[_parts(path)[depth].lower()], _parts(path)[depth + 1], path) for path in images]


def _classes(where: str, placed: Sequence[tuple[str, str, str]]) -> list[str]:
    """Return the class names, sorted, which every given split must have."""
    every = sorted({name for _, name, _ in placed})
    for split in sorted({split for split, _, _ in placed}, key=SPLITS.index):
        present = {name for of, name, _ in placed if of == split}
        absent = [name for name in every if name not in present]
        if absent:
            raise LayoutError(
                f"{where}: {split}/ has no images of {_some(absent)}: every class must stand in each split under the "
                f"same name; {split}/ has {_some(sorted(present))}"
            )
    if len(every) < 2:
        raise LayoutError(f"{where} has one class only, {every[0]}: a classifier needs two or more")
    return every


def _refuse(where: str, paths: Sequence[str], what: str) -> None:
    if paths:
        files = "1 file that is" if len(paths) == 1 else f"{len(paths)} files that are"
        raise LayoutError(f"{where} has {files} {what}: {_some(paths)}; take them out and start again")


def _stays_inside(path: str) -> bool:
    return not ("\\" in path or ":" in path[:2] or path.startswith("/") or ".." in path.split("/"))


def _is_image(path: str) -> bool:
    return path.lower().endswith(IMAGE_SUFFIXES)


def _parts(path: str) -> tuple[str, ...]:
    return PurePosixPath(path).parts


def _some(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
