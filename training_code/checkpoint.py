"""Checkpoints of one training in a folder that SageMaker keeps in step with S3: each written whole or not at all.

Two are kept: should the newest turn out broken, for which a copy that was cut off is enough, the one before it serves.
"""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any

import torch

KEPT = 2
NAME = re.compile(r"checkpoint-(\d{6})\.pt")


class Checkpoints:
    """The checkpoints of one training; `identity` is what must be equal for them to be taken up again."""

    def __init__(self, folder: Path, identity: dict[str, Any]):
        self._folder = folder
        self._identity = identity

    def save(self, state: dict[str, Any]) -> None:
        """Write the next checkpoint, and remove those that are older than the one before it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        there = self._paths()
        number = int(there[0].stem.rpartition("-")[2]) + 1 if there else 1
        partial = self._folder / "checkpoint.partial"
        with partial.open("wb") as file:
            torch.save({"identity": self._identity, "state": state}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._folder / f"checkpoint-{number:06d}.pt")
        for path in there[KEPT - 1 :]:
            path.unlink(missing_ok=True)

    def load(self) -> dict[str, Any] | None:
        """Return the newest state that can be read, or None if there is nothing to go on from; says why."""
        for path in self._paths():
            try:
                saved = torch.load(path, weights_only=True)
                identity, state = saved["identity"], saved["state"]
            except (OSError, RuntimeError, ValueError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
                print(f"{path.name} cannot be read, trying the one before it: {error}", flush=True)
                continue
            if identity == self._identity:
                found: dict[str, Any] = state
                return found
            print(f"{path.name} is of another training, starting anew", flush=True)
            return None
        return None

    def clear(self) -> None:
        """Remove the checkpoints of a training that is done."""
        for path in self._paths():
            path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        """Return the checkpoints, newest first."""
        if not self._folder.is_dir():
            return []
        return sorted((path for path in self._folder.iterdir() if NAME.fullmatch(path.name)), reverse=True)
