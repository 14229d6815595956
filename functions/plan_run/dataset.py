"""A data set as its listing shows it: train/, valid/ and test/, each with one folder of images per class."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

SPLITS = ("train", "valid", "test")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
LEFT_BY_FILE_MANAGERS = ("thumbs.db", "desktop.ini", "__macosx")


class DatasetError(Exception):
    """The data set cannot be trained on. The message says what was found and what was expected."""


@dataclass(frozen=True)
class ListedObject:
    """path: below the data set's folder."""

    path: str
    key: str
    etag: str
    size_bytes: int


def survey(uri: str, objects: Iterable[ListedObject]) -> dict[str, Any]:
    """Return the plan's member `dataset`. Raises DatasetError."""
    listed = sorted(objects, key=lambda item: item.key)
    files = [item for item in listed if not item.path.endswith("/") and not is_ignored(item.path)]
    if not files:
        raise DatasetError(
            f"{uri} holds no images: expected train/, valid/ and test/ with one folder per class in each"
        )
    _refuse(uri, [item.path for item in files if not _is_image(item.path)], "not an image (.jpg, .jpeg or .png)")
    _check_folders(uri, [item.path for item in files])
    _refuse(uri, [item.path for item in files if item.size_bytes == 0], "empty")
    counts = {split: Counter(item.path.split("/")[1] for item in files if _split_of(item) == split) for split in SPLITS}
    classes = _classes(uri, counts)
    digest = hashlib.sha256("".join(f"{item.key}\t{item.etag}\t{item.size_bytes}\n" for item in listed).encode())
    return {
        "uri": uri,
        "listing_digest": digest.hexdigest(),
        "bytes": sum(item.size_bytes for item in files),
        "classes": classes,
        "splits": {
            split: {"images": sum(counts[split].values()), "images_by_class": {c: counts[split][c] for c in classes}}
            for split in SPLITS
        },
    }


def _check_folders(uri: str, paths: Sequence[str]) -> None:
    found = sorted({path.split("/")[0] for path in paths if "/" in path})
    missing = [split for split in SPLITS if split not in found]
    if missing:
        raise DatasetError(
            f"{uri} has no folder {_named(missing)}: found {_named(found) if found else 'no folders'}; "
            "expected train/, valid/ and test/, each with one folder of images per class"
        )
    _refuse(uri, [path for path in paths if path.split("/")[0] not in SPLITS], "outside of train/, valid/ and test/")
    _refuse(uri, [path for path in paths if path.count("/") != 2], "not at <split>/<class>/<image>")


def _classes(uri: str, counts: dict[str, Counter[str]]) -> list[str]:
    """Return the class names, sorted, which every split must have."""
    every = sorted(set().union(*counts.values()))
    for split in SPLITS:
        absent = [name for name in every if not counts[split][name]]
        if absent:
            raise DatasetError(
                f"{uri}{split}/ has no images of {_some(absent)}: every class must stand in train/, valid/ and test/ "
                f"under the same name; {split}/ has {_some(sorted(counts[split]))}"
            )
    if len(every) < 2:
        raise DatasetError(f"{uri} has one class only, {every[0]}: a classifier needs two or more")
    return every


def _refuse(uri: str, paths: Sequence[str], what: str) -> None:
    if paths:
        files = "1 file that is" if len(paths) == 1 else f"{len(paths)} files that are"
        raise DatasetError(f"{uri} has {files} {what}: {_some(paths)}; take them out and start again")


def _split_of(item: ListedObject) -> str:
    return item.path.split("/")[0]


def _is_image(path: str) -> bool:
    return path.lower().endswith(IMAGE_SUFFIXES)


def is_ignored(path: str) -> bool:
    """Hidden files, what file managers leave, and what stands beside the splits without being an image: a README."""
    hidden = any(part.startswith(".") or part.lower() in LEFT_BY_FILE_MANAGERS for part in path.split("/"))
    return hidden or ("/" not in path and not _is_image(path))


def _named(folders: Sequence[str]) -> str:
    return _some([f"{folder}/" for folder in folders])


def _some(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
