"""What an artifact's variant computes with: packages that the serving image installs, and this one lacks."""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from job import JobError


class EnginePackagesError(JobError):
    """A package that the artifact names could not be installed."""


@contextmanager
def engine_packages(artifact: Path) -> Iterator[None]:
    """Make what the artifact's code/requirements.txt pins importable, for as long as the artifact answers.

    Packages that are there in the pinned version are taken as they are; the others go to a folder that is removed
    again, without what they name in turn, which the image has. Raises EnginePackagesError.
    """
    requirements = artifact / "code" / "requirements.txt"
    lines = requirements.read_text().splitlines() if requirements.is_file() else []
    missing = [line for line in lines if line and not line.startswith("#") and not _is_installed(line)]
    with tempfile.TemporaryDirectory() as folder:
        if missing:
            _install(missing, folder)
        sys.path.append(folder)
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path.remove(folder)


def _is_installed(pin: str) -> bool:
    name, _, version = pin.partition("==")
    try:
        return importlib.metadata.version(name) == version
    except importlib.metadata.PackageNotFoundError:
        return False


def _install(pins: list[str], folder: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, *pins]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise EnginePackagesError(f"{', '.join(pins)} could not be installed: {done.stderr.strip()[-600:]}")
