"""Labelled images on this machine, in a folder or an archive: checked as far as is cheap, and copied to datasets/."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kelpie import layout  # PlanRun's own check, by a link
from kelpie.errors import InvalidInput

PARALLEL_UPLOADS = 16
READ_BYTES = 1 << 20
MULTIPART_BYTES = 64 << 20
LEAST_SHARES = {"valid": 0.0, "test": 0.0}  # one image of each class: no input takes fewer


@dataclass(frozen=True)
class LocalFile:
    path: Path
    name: str
    """Below the data set's folder, with slashes."""
    size: int


@dataclass(frozen=True)
class Upload:
    uri: str
    uploaded: int
    unchanged: int


def list_dataset(path: Path) -> list[LocalFile]:
    """Return the files of a data set in the order of their names: those of its folder, or its archive. Links are
    followed. What is no part of the data set, such as hidden files and a README beside the splits, is left out.
    What cannot be read is refused, never passed over.

    Raises InvalidInput if it is missing, or if PlanRun would refuse it: then it is not worth copying.
    """
    if not path.exists():
        raise InvalidInput(f"{path}: there is no such folder or archive")
    is_folder = path.is_dir()
    if not is_folder and not path.name.lower().endswith(layout.ARCHIVE_SUFFIX):
        raise InvalidInput(f"{path}: is a file, neither a folder nor a {layout.ARCHIVE_SUFFIX} archive")
    try:
        where = f"{path}/" if is_folder else str(path)
        files = _files_below(path) if is_folder else [LocalFile(path, path.name, path.stat().st_size)]
        listed = [layout.File(file.name, file.size) for file in files]
        archive = layout.find_archive(where, listed)
        if archive:
            files = [file for file in files if file.name == archive.path]
            listed = _members(files[0])
        found = layout.read_layout(where, listed)
        if not archive:
            names = {image.path for image in found.images}
            files = [file for file in files if file.name in names]
        _refuse_what_cannot_be_read(files)
        layout.refuse_empty_files(where, listed)
        layout.count_by_split(found, LEAST_SHARES)
        _refuse_names_that_are_no_keys(files)
    except layout.LayoutError as error:
        raise InvalidInput(_printable(str(error))) from error
    return files


def _members(archive: LocalFile) -> list[layout.File]:
    with archive.path.open("rb") as file:
        members = layout.read_members(str(archive.path), file, archive.size)
    return [layout.File(name, info.file_size) for name, info in members.items()]


def _refuse_names_that_are_no_keys(files: list[LocalFile]) -> None:
    for file in files:
        if file.name != _printable(file.name):
            raise layout.LayoutError(f"{file.path}: its name is not UTF-8, as S3 wants it: rename it")


def _printable(text: str) -> str:
    r"""Bytes of file names that are no UTF-8 become \xe4 and the like."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def upload_dataset(
    s3: Any, bucket: str, dataset: Path, files: list[LocalFile], on_progress: Callable[[str, int], None]
) -> Upload:
    """Copy the files to datasets/<name>-<digest of names and contents>/, several at a time, and return where they are.

    Objects that are there already are left alone, so an interrupted upload goes on where it was.
    `on_progress("read" or "upload", bytes)` is called from several threads.
    """
    with ThreadPoolExecutor(PARALLEL_UPLOADS) as pool:
        digests = list(pool.map(lambda file: _digest(file, on_progress), files))
        prefix = f"datasets/{_key_name(dataset)}-{_total_digest(files, digests)}/"
        present = _present(s3, bucket, prefix)
        changed = [file for file in files if present.get(prefix + file.name) != file.size]
        on_progress("upload", sum(file.size for file in files) - sum(file.size for file in changed))

        def put(file: LocalFile) -> None:
            if file.size > MULTIPART_BYTES:
                callback = functools.partial(on_progress, "upload")
                s3.upload_file(str(file.path), bucket, prefix + file.name, Callback=callback)
                return
            with file.path.open("rb") as content:
                s3.put_object(Bucket=bucket, Key=prefix + file.name, Body=content)
            on_progress("upload", file.size)

        waiting = [pool.submit(put, file) for file in changed]
        try:
            for upload in waiting:
                upload.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return Upload(f"s3://{bucket}/{prefix}", len(changed), len(files) - len(changed))


def upload_weights(s3: Any, bucket: str, file: Path) -> str:
    """Copy a file of weights to weights/<sha256>/ unless it is there, and return its URI."""
    digest = _digest(LocalFile(file, file.name, file.stat().st_size), lambda _phase, _bytes: None)
    key = f"weights/{digest}/{_key_name(file)}"
    if not _present(s3, bucket, key):
        s3.upload_file(str(file), bucket, key)
    return f"s3://{bucket}/{key}"


def uploaded(s3: Any, bucket: str) -> list[str]:
    """Return the URIs of the data sets in the bucket, by name."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="datasets/", Delimiter="/")
    return [f"s3://{bucket}/{found['Prefix']}" for page in pages for found in page.get("CommonPrefixes", [])]


def _files_below(folder: Path) -> list[LocalFile]:
    """Return the files below a folder by name; none of them has been opened. Raises LayoutError if it has no end."""
    found: list[LocalFile] = []
    for file in _walk(folder, folder, ()):
        found.append(file)
        layout.refuse_too_many(f"{folder}/", len(found))
    return sorted(found, key=lambda file: file.name)


def _walk(root: Path, folder: Path, around: tuple[Path, ...]) -> Iterator[LocalFile]:
    """Yield the files below `folder`, which stands in the folders `around`, without what is hidden in folders."""
    here = folder.resolve()
    if here in around:
        raise layout.LayoutError(f"{folder} is a link to a folder around it, {here}: take it out and start again")
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise layout.LayoutError(f"{folder}/ cannot be read: {error.strerror}") from error
    for entry in entries:
        path = Path(entry.path)
        if not path.is_dir():
            size = path.stat().st_size if path.exists() else 0
            yield LocalFile(path, path.relative_to(root).as_posix(), size)
        elif not _is_hidden(entry.name):
            yield from _walk(root, path, (*around, here))


def _refuse_what_cannot_be_read(files: list[LocalFile]) -> None:
    """Nothing is opened: a named pipe would wait for whoever writes to it."""
    for file in files:
        if not file.path.exists():
            raise layout.LayoutError(f"{file.path} is a link that leads nowhere: mend it, or take it out")
        if not file.path.is_file():
            raise layout.LayoutError(f"{file.path} is no file: take it out and start again")
        if not os.access(file.path, os.R_OK):
            raise layout.LayoutError(f"{file.path} cannot be read: permission denied")


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in layout.LEFT_BY_FILE_MANAGERS


def _digest(file: LocalFile, on_progress: Callable[[str, int], None]) -> str:
    digest = hashlib.sha256()
    with file.path.open("rb") as content:
        while block := content.read(READ_BYTES):
            digest.update(block)
    on_progress("read", file.size)
    return digest.hexdigest()


def _total_digest(files: list[LocalFile], digests: list[str]) -> str:
    """Twelve hexadecimal digits over every name and content."""
    lines = "".join(f"{digest} {file.name}\n" for file, digest in zip(files, digests, strict=True))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _key_name(path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.resolve().name).strip("-.") or "dataset"


def _present(s3: Any, bucket: str, prefix: str) -> dict[str, int]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}
