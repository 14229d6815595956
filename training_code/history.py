"""How a training went: its epochs, the lines that the job prints of them, and training_history.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from documents import write_document


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to, as contracts/training_history.schema.json says."""

    epoch: int
    phase: str
    train_loss: float
    train_accuracy: float
    valid_loss: float
    valid_accuracy: float
    learning_rate: float
    image_size_px: int | None
    images_per_second: float
    waiting_share: float
    seconds: float


@dataclass
class Training:
    """A training so far: its epochs, and the state_dict of the best of them."""

    history: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None
    best_state: dict[str, torch.Tensor] = field(default_factory=dict)
    stopped_early: bool = False
    steps: int = 0
    """Of the phases that are over."""


def epoch_line(epoch: Epoch, epochs: int, seconds_left: float) -> str:
    """Return the line that the job prints; SageMaker reads its metrics from it by regular expressions.

    epochs: of all phases. seconds_left: of this one, since an epoch of another takes a quite different time.
    """
    size = f" image_size_px={epoch.image_size_px}" if epoch.image_size_px else ""
    return (
        f"epoch {epoch.epoch}/{epochs} train_loss={epoch.train_loss:.4f} train_accuracy={epoch.train_accuracy:.4f} "
        f"valid_loss={epoch.valid_loss:.4f} valid_accuracy={epoch.valid_accuracy:.4f} "
        f"learning_rate={epoch.learning_rate:.1e} images_per_second={epoch.images_per_second:.0f}{size} "
        f"waiting={epoch.waiting_share:.1%} phase={epoch.phase} phase_seconds_left={seconds_left:.0f}"
    )


def final_line(best: Epoch) -> str:
    """Return the last line of a training: SageMaker keeps the last value of a metric as the job's."""
    return f"final valid_accuracy={best.valid_accuracy:.4f} (epoch {best.epoch})"


def write_history(
    folders: Sequence[Path],
    stage: str,
    training: Training,
    decisions: Mapping[str, Any],
    values: Sequence[Mapping[str, Any]],
) -> None:
    """Write training_history.json to each folder."""
    document = {
        "version": 1,
        "stage": stage,
        "best_epoch": training.best.epoch if training.best else None,
        "stopped_early": training.stopped_early,
        "decisions": dict(decisions),
        "values": [dict(value) for value in values],
        "epochs": [asdict(epoch) for epoch in training.history],
    }
    for folder in folders:
        write_document(folder / "training_history.json", document, "training_history")
