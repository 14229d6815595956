"""Where the images are: a folder, or one zip archive, from which they are read without being unpacked.

So nothing that an archive names can be written anywhere, no job waits for thousands of files to be copied, and no run
leaves a second copy of a data set behind. Every read opens the archive anew: threads and forked workers share nothing.
"""

from __future__ import annotations

import functools
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from layout import ARCHIVE_SUFFIX, File, find_archive, read_members

LOCAL_HEADER = "<4s22xHH"  # APPNOTE.TXT 4.3.7: signature, ..., lengths of name and extra field
SIGNATURE = b"PK\x03\x04"
END_OF_IMAGE = b"\xff\xd9"


class DamagedArchive(OSError):
    """A file of the archive cannot be read whole."""


def list_files(root: Path) -> list[File]:
    """Return the files of a folder, or of the archive that is `root` or lies in it. Raises LayoutError."""
    archive = _archive_of(root)
    if archive is None:
        return _files_below(root)
    return [File(path, info.file_size) for path, info in _members(archive).items()]


def read_file(root: Path, path: str) -> bytes:
    """Return a file's content by its path as listed. Raises OSError, LayoutError."""
    archive = _archive_of(root)
    if archive is None:
        return (root / path).read_bytes()
    info = _members(archive).get(path)
    if info is None:
        raise DamagedArchive(f"{archive} has no {path}")
    return _read_member(archive, info)


def read_image(root: Path, entry: Mapping[str, Any]) -> bytes:
    """Return the file of a manifest's entry; one that breaks off, ended so that decoders fill in what it lacks."""
    content = read_file(root, entry["path"])
    return content + END_OF_IMAGE if entry.get("truncated") else content


@functools.lru_cache(maxsize=8)
def _archive_of(root: Path) -> Path | None:
    if root.is_file():
        return root
    found = find_archive(str(root), _files_below(root)) if any(_archives_in(root)) else None
    return root / found.path if found else None


def _archives_in(root: Path) -> list[Path]:
    return [path for path in root.iterdir() if path.name.lower().endswith(ARCHIVE_SUFFIX)]


def _files_below(root: Path) -> list[File]:
    return [
        File(path.relative_to(root).as_posix(), path.stat().st_size)
        for path in sorted(root.rglob("*"))
        if path.is_file()
    ]


@functools.lru_cache(maxsize=8)
def _members(archive: Path) -> dict[str, zipfile.ZipInfo]:
    with archive.open("rb") as file:
        return read_members(str(archive), file, archive.stat().st_size)


def _read_member(archive: Path, info: zipfile.ZipInfo) -> bytes:
    with archive.open("rb") as file:
        file.seek(info.header_offset)
        signature, name_length, extra_length = struct.unpack(LOCAL_HEADER, file.read(struct.calcsize(LOCAL_HEADER)))
        file.seek(name_length + extra_length, 1)
        content = file.read(info.compress_size)
    if signature != SIGNATURE:
        raise DamagedArchive(f"{info.filename} is not where {archive} says it is")
    if info.compress_type == zipfile.ZIP_DEFLATED:
        try:
            content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, info.file_size + 1)
        except zlib.error as error:
            raise DamagedArchive(f"{info.filename} of {archive} is damaged: {error}") from error
    if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
        raise DamagedArchive(f"{info.filename} of {archive} is damaged")
    return content
