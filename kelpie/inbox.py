"""Images dropped into the inbox of a stack, and the result documents that come back for them."""

from __future__ import annotations

import datetime
import hashlib
import os
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from kelpie import documents
from kelpie.errors import InvalidInput
from kelpie.stack import Stack

PARALLEL_REQUESTS = 16
POLL_SECONDS = 0.3
MAGIC_NUMBERS = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
)
LONGEST_MAGIC_NUMBER = 12  # WebP's


@dataclass(frozen=True)
class Dropped:
    """An object in the inbox that awaits its result."""

    file: str
    """As given."""
    key: str
    result_key: str


def check(files: list[str]) -> None:
    """Raise InvalidInput naming every file that is missing or cannot be read."""
    problems = [problem for file in files if (problem := _unreadable(Path(file)))]
    if problems:
        raise InvalidInput(f"nothing was uploaded: {'; '.join(problems)}")


def drop(stack: Stack, files: list[str], on_progress: Callable[[], None]) -> list[Dropped]:
    """Upload each file to inbox/<unique>/<file name>, several at a time, and return them in the given order."""
    batch = new_batch()

    def put(numbered: tuple[int, str]) -> Dropped:
        number, file = numbered
        with Path(file).open("rb") as content:
            dropped = put_one(stack, f"{batch}-{number:04d}", file, content)
        on_progress()
        return dropped

    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        return list(pool.map(put, enumerate(files)))


def new_batch() -> str:
    """Return a name that no other drop has: the folder in the inbox begins with it."""
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


def put_one(stack: Stack, folder: str, file: str, content: IO[bytes]) -> Dropped:
    """Upload one file's content to inbox/<folder>/<file name>."""
    key = f"inbox/{folder}/{_key_name(file)}"
    content.seek(0)
    media_type = content_type(content.read(LONGEST_MAGIC_NUMBER))
    content.seek(0)
    stored = stack.client("s3").put_object(Bucket=stack.bucket, Key=key, Body=content, ContentType=media_type)
    return Dropped(file, key, result_key(key, stored.get("VersionId") or stored["ETag"].strip('"')))


def answer(stack: Stack, key: str) -> dict[str, Any] | None:
    """Return the result document at `results/...`, or None if there is none yet."""
    return documents.read(stack.client("s3"), f"s3://{stack.bucket}/{key}", "classification")


def newest_answers(stack: Stack, count: int, most_listed: int | None = None) -> tuple[list[dict[str, Any]], int, bool]:
    """Return the newest result documents, newest first, how many results were listed, and whether those are all.

    Results lie by digest, so the newest are only found by listing: `most_listed` bounds that.
    """
    pages = stack.client("s3").get_paginator("list_objects_v2").paginate(Bucket=stack.bucket, Prefix="results/")
    listed: list[dict[str, Any]] = []
    complete = True
    for page in pages:
        listed += page.get("Contents", [])
        if most_listed is not None and len(listed) >= most_listed:
            complete = not page["IsTruncated"]
            break
    newest = sorted(listed, key=lambda found: found["LastModified"], reverse=True)[:count]
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        answers = [found for found in pool.map(lambda one: answer(stack, one["Key"]), newest) if found]
    return answers, len(listed), complete


def collect(
    stack: Stack, dropped: list[Dropped], timeout_seconds: float, on_progress: Callable[[], None]
) -> list[dict[str, Any]]:
    """Wait for the results and return one row an image in the given order: file, key, status, label, ...

    An image without a result within `timeout_seconds` of the last one that came is `failed`, with the reason NoResult.
    """
    found: dict[str, dict[str, Any]] = {}
    deadline = time.monotonic() + timeout_seconds
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        while len(found) < len(dropped) and time.monotonic() < deadline:
            waiting = [image for image in dropped if image.key not in found]
            results = list(pool.map(lambda image: answer(stack, image.result_key), waiting))
            for image, result in zip(waiting, results, strict=True):
                if result is not None:
                    found[image.key] = result
                    on_progress()
                    deadline = time.monotonic() + timeout_seconds
            if len(found) < len(dropped):
                time.sleep(POLL_SECONDS)
    return [row(image, found.get(image.key), timeout_seconds) for image in dropped]


def row(image: Dropped, result: dict[str, Any] | None, timeout_seconds: float) -> dict[str, Any]:
    """Return what is shown of a result document (contracts/classification.schema.json), or of none."""
    if result is None:
        message = f"no result within {timeout_seconds:g} seconds; it may still come: {image.result_key}"
        result = {
            "status": "failed",
            "label": None,
            "probability": None,
            "predictions": [],
            "reason": {"code": "NoResult", "message": message},
        }
    shown = ("status", "label", "probability", "predictions", "reason")
    return {"file": image.file, "key": image.key, **{name: result[name] for name in shown}}


def result_key(key: str, version: str) -> str:
    return f"results/{hashlib.sha256(key.encode()).hexdigest()}/{version}.json"


def content_type(head: bytes) -> str:
    """Return the media type by how the file begins, never by its name."""
    for magic, media_type in MAGIC_NUMBERS:
        if head.startswith(magic):
            return media_type
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return "application/octet-stream"


def _unreadable(path: Path) -> str | None:
    if path.is_dir():
        return f"{path} is a folder: name the images in it"
    if not path.exists():
        return f"{path}: there is no such file"
    if not os.access(path, os.R_OK):
        return f"{path} cannot be read: permission denied"
    return None


def _key_name(file: str) -> str:
    """The file's own name; bytes that are no UTF-8 become U+FFFD, since a key must be UTF-8."""
    return os.fsencode(Path(file).name).decode("utf-8", "replace")
