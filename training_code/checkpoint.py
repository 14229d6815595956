"""One checkpoint of a training in a folder that SageMaker keeps in step with S3: written whole or not at all."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

FILE = "checkpoint.pt"


class Checkpoints:
    """The checkpoint of one training; `identity` is what must be equal for it to be taken up again."""

    def __init__(self, folder: Path, identity: dict[str, Any]):
        self._path = folder / FILE
        self._identity = identity

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint: whoever reads it sees the old one or the new one."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        with partial.open("wb") as file:
            torch.save({"identity": self._identity, "state": state}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)

    def load(self) -> dict[str, Any] | None:
        """Return what was saved last, or None if there is nothing that this training can go on from; says why."""
        if not self._path.is_file():
            return None
        try:
            saved = torch.load(self._path, weights_only=True)
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            print(f"{self._path} cannot be read, starting anew: {error}", flush=True)
            return None
        if saved["identity"] != self._identity:
            print(f"{self._path} is of another training, starting anew", flush=True)
            return None
        state: dict[str, Any] = saved["state"]
        return state

    def clear(self) -> None:
        """Remove the checkpoint of a training that is done."""
        self._path.unlink(missing_ok=True)
