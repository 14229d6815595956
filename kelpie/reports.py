"""The pages that a run has left in the bucket: its report and the profiler's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from kelpie import execution
from kelpie.errors import InvalidInput, RunFailed
from kelpie.progress import OVER
from kelpie.stack import Stack

PAGES = {"index.html": "Report", "profiler-report.html": "Profiler report"}
"""What each is called."""


def listed(stack: Stack, run: str) -> dict[str, str]:
    """Return the pages of a run by what they are called: their place below runs/<run id>/."""
    names = {PurePosixPath(key).name for key in _keys(stack, run)}
    return {label: f"report/{name}" for name, label in PAGES.items() if name in names}


def fetch(stack: Stack, arn: str, folder: Path) -> Path:
    """Copy a run's report and all beside it to `folder`, and return the page to open.

    Raises RunFailed if the run has left none: it was stopped before, or still goes on.
    """
    run, s3 = execution.run_id(arn), stack.client("s3")
    keys = _keys(stack, run)
    if f"runs/{run}/report/index.html" not in keys:
        described = stack.client("stepfunctions").describe_execution(executionArn=arn)
        name, status = described["name"], described["status"]
        if status in OVER:
            raise RunFailed(f"the run {name} is {status} and has left no report: kelpie logs {name} has what it logged")
        raise RunFailed(f"the run {name} has left no report yet, it goes on. Follow it: kelpie run --attach {name}")
    folder.mkdir(parents=True, exist_ok=True)
    for key in keys:
        s3.download_file(stack.bucket, key, str(folder / PurePosixPath(key).name))
    return folder / "index.html"


def newest(stack: Stack) -> str:
    """Return the ARN of the newest execution that has ended. Raises InvalidInput if there is none."""
    for one in execution.recent(stack, 100):
        if one["status"] in OVER:
            return str(one["executionArn"])
    raise InvalidInput("no run has ended yet: `kelpie status` lists what there is")


def cache_folder(environment: Mapping[str, str], name: str) -> Path:
    """Return where reports are kept for the browser: a place of the user's own that anything may clear."""
    base = environment.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    return Path(base) / "kelpie" / "reports" / name


def _keys(stack: Stack, run: str) -> list[str]:
    """Pages and what lies beside them, no folders below."""
    prefix = f"runs/{run}/report/"
    pages = (
        stack.client("s3").get_paginator("list_objects_v2").paginate(Bucket=stack.bucket, Prefix=prefix, Delimiter="/")
    )
    return [found["Key"] for page in pages for found in page.get("Contents", []) if found["Key"] != prefix]
