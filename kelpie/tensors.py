"""The tensors of a training, reviewed afterwards: the rules run on what hooks have left in a folder or in S3."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rich.table import Table

from kelpie.errors import InvalidInput, RunFailed

REVIEW_SCRIPT = Path(__file__).parents[1] / "training_code" / "review_tensors.py"
FINDINGS = "findings.json"
"""What the last training left beside its tensors; it says which they are."""
HOOKS_FOLDER = "smdebug"
"""Where a training's hooks write below its output and its checkpoints; the next training's to smdebug-2, and so on."""
PARTS = ("collections", "events", "index")
"""What smdebug writes: a folder without the first holds no tensors."""
PARALLEL_REQUESTS = 16


def find(folder: Path) -> Path:
    """Return the tensors' folder: this one, or the last training's below it. Raises InvalidInput if there is none."""
    findings = folder / FINDINGS
    named = _named(findings.read_bytes()) if findings.is_file() else []
    below = [found.name for found in folder.glob(f"{HOOKS_FOLDER}*")]
    for candidate in (folder, *(folder / name for name in (*named, *_latest_first(below)))):
        if (candidate / PARTS[0]).is_dir():
            return candidate
    raise _missing(str(folder))


def fetch(s3: Any, uri: str, folder: Path) -> Path:
    """Copy the tensors below a prefix to `folder`, which is returned. Raises InvalidInput if there are none."""
    bucket, _, path = uri.removeprefix("s3://").partition("/")
    root = f"{path.rstrip('/')}/" if path else ""
    findings = _keys(s3, bucket, f"{root}{FINDINGS}")
    named = _named(s3.get_object(Bucket=bucket, Key=findings[0])["Body"].read()) if findings else []
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=f"{root}{HOOKS_FOLDER}", Delimiter="/").get("CommonPrefixes", [])
    below = [one["Prefix"].removeprefix(root).rstrip("/") for one in listed]
    for prefix in (root, *(f"{root}{name}/" for name in (*named, *_latest_first(below)))):
        keys = [key for part in PARTS for key in _keys(s3, bucket, f"{prefix}{part}/")]
        if any(key.startswith(f"{prefix}{PARTS[0]}/") for key in keys):
            _download(s3, bucket, prefix, keys, folder)
            return folder
    raise _missing(uri)


def review(python: Path, tensors: Path, place: str, parameters: Sequence[str] = ()) -> dict[str, Any]:
    """Return findings.json of the tensors in a folder; `python` is the training image's. Raises RunFailed.

    place: what the user calls the folder; parameters: of rules, each `Rule.parameter=value`.
    """
    with tempfile.TemporaryDirectory() as output:
        command = [str(python), str(REVIEW_SCRIPT), "--tensors", str(tensors), "--output_data_dir", output]
        command += ["--parameters", ",".join(parameters) or "none"]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"]
            raise RunFailed(f"the rules could not run on {place}: {said[-1]}")
        document: dict[str, Any] = json.loads(Path(output, "findings.json").read_text())
        return document


def table(findings: Sequence[dict[str, Any]]) -> Table:
    """Return the rules and what each came to."""
    rows = Table("Rule", "Status", "Step", "Finding", box=None, pad_edge=False)
    for found in findings:
        step = "-" if found["step"] is None else str(found["step"])
        rows.add_row(found["rule"], found["status"], step, found["message"])
    return rows


def _named(findings: bytes) -> list[str]:
    """Return the folder of tensors that findings.json names, if it does: it may be another tool's."""
    try:
        named = json.loads(findings)["tensors"]
    except (ValueError, KeyError, TypeError):
        return []
    return [named] if isinstance(named, str) else []


def _latest_first(names: Sequence[str]) -> list[str]:
    """Return the hooks' folders among others, that of the last training first."""
    matches = [re.fullmatch(rf"{HOOKS_FOLDER}(?:-(\d+))?", name) for name in names]
    return [found[0] for found in sorted(filter(None, matches), key=lambda found: -int(found[1] or 1))]


def _keys(s3: Any, bucket: str, prefix: str) -> list[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
    return [key for key in keys if not key.endswith("/") and ".." not in key.split("/")]  # a key may name any place


def _download(s3: Any, bucket: str, prefix: str, keys: Sequence[str], folder: Path) -> None:
    places = [folder / key.removeprefix(prefix) for key in keys]
    for place in {place.parent for place in places}:
        place.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        list(pool.map(lambda pair: s3.download_file(bucket, pair[0], str(pair[1])), zip(keys, places, strict=True)))


def _missing(place: str) -> InvalidInput:
    return InvalidInput(
        f"{place} holds no tensors: give the folder or the prefix in which hooks have left {', '.join(PARTS)}, such as "
        f"runs/RUN/checkpoints/JOB/{HOOKS_FOLDER}/"
    )
