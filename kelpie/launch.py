"""A run started from a data set and settings: everything is checked first, then copied, then an execution begins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kelpie import dataset as datasets
from kelpie import execution, settings
from kelpie.stack import Stack

NOT_UPLOADED_YET = "s3://not-uploaded-yet/"


@dataclass(frozen=True)
class Launch:
    """What is to be run, after every check that needs no cloud."""

    dataset: str
    """An s3:// URI, or a folder or an archive on this machine."""
    assignments: tuple[str, ...]
    weights: Path | None
    files: list[datasets.LocalFile]
    """To be copied; none for a URI."""

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Started:
    arn: str
    dataset_uri: str
    upload: datasets.Upload | None
    """None for a data set that was in S3 already."""


def prepare(dataset: str, assignments: list[str]) -> Launch:
    """Check all that can be checked here. Raises InvalidInput."""
    is_uri = dataset.startswith("s3://")
    assignments, weights = settings.take_weights_file(assignments)
    settings.execution_input(assignments, dataset if is_uri else NOT_UPLOADED_YET)
    files = [] if is_uri else datasets.list_dataset(Path(dataset).expanduser())
    return Launch(dataset, tuple(assignments), weights, files)


def start(stack: Stack, launch: Launch, on_progress: Callable[[str, int], None]) -> Started:
    """Copy weights and data set if they are on this machine, and start an execution.

    `on_progress("read" or "upload", bytes)` is called from several threads.
    """
    s3, assignments, upload = stack.client("s3"), list(launch.assignments), None
    if launch.weights:
        assignments.append(f"model.weights={datasets.upload_weights(s3, stack.bucket, launch.weights)}")
    if launch.files:
        path = Path(launch.dataset).expanduser()
        upload = datasets.upload_dataset(s3, stack.bucket, path, launch.files, on_progress)
    uri = upload.uri if upload else launch.dataset
    return Started(execution.start(stack, settings.execution_input(assignments, uri)), uri, upload)
