"""A folder of a job that is kept equal to its place in S3: checkpoints down before the start, and up during the job and
at its end, as what the job writes for the Debugger.
"""

import logging
import os
from pathlib import Path
from typing import Any

from localcloud.sagemaker.objects import Location, ObjectCache, TransferError, list_objects, safe_path, upload

logger = logging.getLogger(__name__)


class Checkpoints:
    """Files are uploaded when their size or time has changed; what the job deletes stays in S3, as on AWS."""

    def __init__(self, s3: Any, location: Location, folder: Path):
        self._s3 = s3
        self._location = location
        self._folder = folder
        self._uploaded: dict[str, tuple[int, int]] = {}

    def download(self, cache: ObjectCache, role_arn: str) -> None:
        """Raises TransferError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        folder = self._location.below("")
        stored = list_objects(self._s3, folder)
        cache.fetch(
            self._s3,
            role_arn,
            [(found, safe_path(self._folder, found.location.key.removeprefix(folder.key))) for found in stored],
        )
        self._uploaded = self._files()

    def upload_changes(self) -> None:
        """Raises TransferError."""
        for name, state in self._files().items():
            if self._uploaded.get(name) != state:
                try:
                    upload(self._s3, self._folder / name, self._location.below(name))
                except FileNotFoundError:  # renamed or deleted since it was listed
                    continue
                self._uploaded[name] = state

    def try_upload_changes(self) -> None:
        """The same while the job runs: what fails is tried again the next time, and counts only in the end."""
        try:
            self.upload_changes()
        except TransferError as error:
            logger.warning("checkpoints are not up to date: %s", error)

    def _files(self) -> dict[str, tuple[int, int]]:
        files = {}
        for parent, _, names in os.walk(self._folder):
            for name in names:
                path = Path(parent, name)
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                files[path.relative_to(self._folder).as_posix()] = (status.st_size, status.st_mtime_ns)
        return files
