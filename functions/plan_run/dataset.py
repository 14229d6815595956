"""A data set as S3 shows it before anything is paid for: a folder's listing, or the directory of its one archive."""

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import documents
import layout
from botocore.exceptions import ClientError

RANGE_BYTES = 1 << 20
UNREACHABLE = ("NoSuchBucket", "AccessDenied")


class DatasetError(Exception):
    """The data set cannot be trained on. The message says what was found and what was expected."""


@dataclass(frozen=True, slots=True)
class ListedObject:
    """path: below the data set's folder."""

    path: str
    key: str
    etag: str
    size_bytes: int


@dataclass(frozen=True)
class Listing:
    """What is kept of a folder's objects, which are many."""

    files: list[layout.File]
    zips: dict[str, ListedObject]
    """By path."""
    digest: str
    bytes: int
    """Of all that is not hidden."""


def survey(s3: Any, uri: str, shares: Mapping[str, float]) -> dict[str, Any]:
    """Return the plan's member `dataset`. shares: of splits that are not given. Raises DatasetError."""
    try:
        listing = listing_of(uri, listed(s3, uri))
        files, archive = listing.files, layout.find_archive(uri, listing.files)
        if archive:
            files = members(s3, documents.split_uri(uri)[0], listing.zips[archive.path])
        found = layout.read_layout(uri, files)
        layout.refuse_empty_files(uri, files)
        counts = layout.count_by_split(found, shares)
    except layout.LayoutError as error:
        raise DatasetError(str(error)) from error
    return {
        "uri": uri,
        "listing_digest": listing.digest,
        "archive": archive.path if archive else None,
        "bytes": listing.bytes,
        "classes": found.classes,
        "splits": {
            split: {"images": sum(by_class.values()), "images_by_class": by_class} for split, by_class in counts.items()
        },
    }


def listing_of(uri: str, objects: Iterable[ListedObject]) -> Listing:
    """Read a listing to its end, or until it is too long: then raises LayoutError."""
    files: list[layout.File] = []
    zips: dict[str, ListedObject] = {}
    digest, size_bytes = hashlib.sha256(), 0
    for number, item in enumerate(objects, start=1):
        layout.refuse_too_many(uri, number)
        digest.update(f"{item.key}\t{item.etag}\t{item.size_bytes}\n".encode())
        if not layout.is_hidden(item.path):
            size_bytes += item.size_bytes
        if not item.path.endswith("/"):
            files.append(layout.File(item.path, item.size_bytes))
        if item.path.lower().endswith(layout.ARCHIVE_SUFFIX):
            zips[item.path] = item
    return Listing(files, zips, digest.hexdigest(), size_bytes)


def listed(s3: Any, uri: str) -> Iterator[ListedObject]:
    """Yield every object below an s3:// folder by its key, as S3 lists them, or the archive that it names.

    Raises DatasetError.
    """
    bucket, prefix = documents.split_uri(uri)
    folder = prefix if prefix.endswith("/") or not prefix else prefix.rpartition("/")[0] + "/"
    try:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                yield ListedObject(item["Key"].removeprefix(folder), item["Key"], item["ETag"], item["Size"])
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code not in UNREACHABLE:
            raise
        raise DatasetError(
            f"{uri} cannot be listed ({code}): the bucket must exist and be the stack's own, "
            "or the one that the stack was given as DatasetBucketName"
        ) from error


def members(s3: Any, bucket: str, archive: ListedObject) -> list[layout.File]:
    """Return the files of an archive in S3, of which only the directory at its end is read. Raises LayoutError."""
    file = io.BufferedReader(RangedObject(s3, bucket, archive), RANGE_BYTES)
    infos = layout.read_members(f"s3://{bucket}/{archive.key}", file, archive.size_bytes)
    return [layout.File(path, info.file_size) for path, info in infos.items()]


class RangedObject(io.RawIOBase):
    """An object in S3 as a file that can be read from any place in it."""

    def __init__(self, s3: Any, bucket: str, item: ListedObject):
        self._s3, self._bucket, self._item, self._position = s3, bucket, item, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._item.size_bytes}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        last = min(self._position + len(buffer), self._item.size_bytes) - 1
        if last < self._position:
            return 0
        body = self._s3.get_object(
            Bucket=self._bucket,
            Key=self._item.key,
            Range=f"bytes={self._position}-{last}",
            IfMatch=self._item.etag,
        )["Body"].read()
        buffer[: len(body)] = body
        self._position += len(body)
        return len(body)
