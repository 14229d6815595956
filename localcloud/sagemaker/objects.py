"""S3 objects as files: where they are, listing, parallel downloads through a cache, uploads.

The cache keeps an object under the role that was allowed to read it and the object's ETag, so that the second job that
reads the same data set copies it from disk. Listing is never cached: what a job sees is what the bucket holds now, if
its role may list it. (A permission to read that is withdrawn is noticed when the object changes or has left the cache.)
"""

import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError

PARALLEL_TRANSFERS = 8
CHUNK_BYTES = 1 << 20

Item = TypeVar("Item")
Result = TypeVar("Result")


class TransferError(Exception):
    """Objects could not be listed, read or written; the message says which and why."""


@dataclass(frozen=True)
class Location:
    """s3://bucket/key, key without a leading slash; it may be a prefix."""

    bucket: str
    key: str

    @classmethod
    def parse(cls, uri: str) -> "Location":
        """Raises ValueError if it is no s3:// URI."""
        scheme, separator, rest = uri.partition("://")
        bucket, _, key = rest.partition("/")
        if scheme != "s3" or not separator or not bucket:
            raise ValueError(f"{uri!r} is not of the form s3://bucket/key")
        return cls(bucket, key)

    def below(self, name: str) -> "Location":
        """Return the location of `name` in this one taken as a folder."""
        return Location(self.bucket, f"{self.key.rstrip('/')}/{name}".lstrip("/"))

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class StoredObject:
    location: Location
    size: int
    etag: str


def list_objects(s3: Any, prefix: Location) -> list[StoredObject]:
    """Return the objects whose keys begin with the prefix, without folder markers. Raises TransferError."""
    found = []
    with _explained(f"list {prefix}"):
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=prefix.bucket, Prefix=prefix.key):
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):
                    found.append(StoredObject(Location(prefix.bucket, item["Key"]), item["Size"], item["ETag"]))
    return found


def safe_path(folder: Path, relative: str) -> Path:
    """Return the file for a key below `folder`. Raises TransferError for keys that would leave it."""
    parts = PurePosixPath(relative).parts
    if not parts or parts[0] == "/" or ".." in parts:
        raise TransferError(f"the key {relative!r} cannot be written as a file below the channel's folder")
    return folder.joinpath(*parts)


def upload(s3: Any, file: Path, location: Location, kms_key_id: str | None = None) -> None:
    """Raises TransferError; FileNotFoundError if the file has gone."""
    extra = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key_id} if kms_key_id else {}
    with _explained(f"write {location}"):
        if file.stat().st_size < CHUNK_BYTES:
            s3.put_object(Bucket=location.bucket, Key=location.key, Body=file.read_bytes(), **extra)
        else:
            s3.upload_file(str(file), location.bucket, location.key, ExtraArgs=extra)


def in_parallel(transfer: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Apply `transfer` to each; what has not begun when one fails is not begun."""
    with ThreadPoolExecutor(PARALLEL_TRANSFERS, "transfer") as pool:
        futures = [pool.submit(transfer, item) for item in items]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class ObjectCache:
    """Safe for many threads; `limit_bytes` is what it is cut down to, the least recently used first, by `trim`."""

    def __init__(self, folder: Path, limit_bytes: int):
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._trimming = threading.Lock()

    def fetch(self, s3: Any, role_arn: str, wanted: Iterable[tuple[StoredObject, Path]]) -> int:
        """Write every object to its file, in parallel; return the bytes written. Raises TransferError."""
        pairs = list(wanted)
        for parent in {path.parent for _, path in pairs}:
            try:
                parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:  # too long a name, or an object and a folder of the same name
                raise TransferError(f"the folder {parent} cannot be made: {error.strerror}") from error
        from_cache = in_parallel(lambda pair: self._fetch_one(s3, role_arn, *pair), pairs)
        if not all(from_cache):
            self.trim()
        return sum(stored.size for stored, _ in pairs)

    def trim(self) -> None:
        with self._trimming:
            entries = []
            for entry in self._folder.glob("*/*"):
                with suppress(FileNotFoundError):  # a temporary file that has its name by now
                    status = entry.stat()
                    entries.append((status.st_mtime_ns, status.st_size, entry))
            total = sum(size for _, size, _ in entries)
            for _, size, entry in sorted(entries):
                if total <= self._limit_bytes:
                    return
                entry.unlink(missing_ok=True)
                total -= size

    def _fetch_one(self, s3: Any, role_arn: str, stored: StoredObject, path: Path) -> bool:
        """Return whether it came from the cache."""
        try:
            return self._copy_or_download(s3, role_arn, stored, path)
        except OSError as error:
            raise TransferError(f"{stored.location} cannot be written to disk: {error.strerror}") from error

    def _copy_or_download(self, s3: Any, role_arn: str, stored: StoredObject, path: Path) -> bool:
        entry = self._entry(role_arn, stored.location, stored.etag)
        try:
            shutil.copyfile(entry, path)
            os.utime(entry)
            return True
        except FileNotFoundError:
            pass
        with _explained(f"read {stored.location}"), path.open("wb") as file:
            answer = s3.get_object(Bucket=stored.location.bucket, Key=stored.location.key)
            for chunk in answer["Body"].iter_chunks(CHUNK_BYTES):
                file.write(chunk)
        entry = self._entry(role_arn, stored.location, answer["ETag"])  # the object may be newer than the listing
        entry.parent.mkdir(parents=True, exist_ok=True)
        temporary = entry.with_name(f"{entry.name}.{threading.get_ident()}")
        shutil.copyfile(path, temporary)
        with suppress(FileNotFoundError):  # trimmed away
            temporary.replace(entry)
        return False

    def _entry(self, role_arn: str, location: Location, etag: str) -> Path:
        role = hashlib.sha256(role_arn.encode()).hexdigest()[:16]
        return self._folder / role / hashlib.sha256(f"{location}\0{etag}".encode()).hexdigest()


@contextmanager
def _explained(doing: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        details = error.response.get("Error", {})
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "")
        raise TransferError(
            f"{details.get('Code', 'Error')} ({status}): {details.get('Message', '')}: cannot {doing}"
        ) from error
    except (BotoCoreError, Boto3Error) as error:
        raise TransferError(f"{type(error).__name__}: {error}: cannot {doing}") from error
