"""The training loop: AdamW under a warm-up and a cosine, the best epoch by validation accuracy kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from batches import Batches, cut_batches
from checkpoint import Checkpoints
from job import JobError
from torch import nn

WARM_UP = 0.2  # of all steps
CHECKPOINT_SECONDS = 120
"""Between two checkpoints: each holds the network four times and is copied to S3. SIGTERM, which announces that an
instance is taken away, saves at once; so this much is lost only where nothing announces the end."""


class TrainingDiverged(JobError):
    """The loss is no number any more: nothing that follows would mean anything."""

    def __init__(self, step: int, epoch: int, loss: float, learning_rate: float):
        super().__init__(
            f"the loss became {loss} at step {step} (epoch {epoch}), learning_rate {learning_rate:g}: lower it"
        )
        self.step = step
        self.loss = loss


class TrainingStopped(Exception):
    """SIGTERM came; where there is a folder for checkpoints, the training can go on from here."""


class Observer(Protocol):
    """What watches a training: the debugger's hooks, or nothing."""

    def mode(self, training: bool) -> None:
        """Hear whether the next forward passes train or validate."""


class NoObserver:
    """Watches nothing."""

    def mode(self, training: bool) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Hyperparameters:
    """The four that are tuned, and the number of epochs."""

    learning_rate: float
    eps: float
    weight_decay: float
    batch_size: int
    epochs: int


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to. Accuracies are shares; the learning rate is that of its last step."""

    epoch: int  # from 1
    train_loss: float
    train_accuracy: float
    valid_loss: float
    valid_accuracy: float
    learning_rate: float
    images_per_second: float
    seconds: float


@dataclass
class Training:
    """A training so far: its epochs, and the state_dict of the best of them."""

    history: list[Epoch] = field(default_factory=list)
    best: Epoch | None = None
    best_state: dict[str, torch.Tensor] = field(default_factory=dict)


def fit(
    network: nn.Module,
    criterion: nn.Module,
    batches: Batches,
    hyperparameters: Hyperparameters,
    seed: int,
    *,
    checkpoints: Checkpoints | None = None,
    observer: Observer | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Training:
    """Train `network` and leave it with the weights of its best epoch: highest validation accuracy, then lowest loss.

    Same seed, same machine, same number of threads: same result, also when resumed from a checkpoint.
    Raises DatasetError if the batch is larger than the training split, TrainingDiverged, TrainingStopped.
    """
    observer = observer or NoObserver()
    optimizer = torch.optim.AdamW(
        [parameter for parameter in network.parameters() if parameter.requires_grad],
        lr=hyperparameters.learning_rate,
        eps=hyperparameters.eps,
        weight_decay=hyperparameters.weight_decay,
        fused=True,
    )
    generator = torch.Generator()
    epochs = hyperparameters.epochs
    steps = len(cut_batches(batches.train_images, hyperparameters.batch_size, generator))
    training = Training()
    resumed = checkpoints.load() if checkpoints else None
    progress = _restore(resumed, network, optimizer, training) if resumed else _Progress()
    if resumed:
        print(f"resumed at epoch {progress.epoch} after {progress.step} of its {steps} steps", flush=True)
    saved_at = time.monotonic()
    for epoch in range(progress.epoch, epochs + 1):
        if not (progress.epoch == epoch and progress.step):
            progress = _Progress(epoch)
            torch.manual_seed((seed << 16) + epoch)  # of dropout and augmentation: an epoch depends on no other
        generator.manual_seed((seed << 16) + epoch)
        started, first = time.monotonic(), progress.step
        order = cut_batches(batches.train_images, hyperparameters.batch_size, generator)
        network.train()
        observer.mode(training=True)
        for inputs, labels in batches.train(order[first:]):
            if stopping():
                if checkpoints:
                    checkpoints.save(_state(network, optimizer, training, progress))
                raise TrainingStopped(f"stopped in epoch {epoch} after {progress.step} of {steps} steps")
            step = (epoch - 1) * steps + progress.step
            rate = hyperparameters.learning_rate * schedule(step, steps * epochs)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss, right = train_one_step(network, criterion, optimizer, inputs, labels)
            if not math.isfinite(loss):
                raise TrainingDiverged(step, epoch, loss, hyperparameters.learning_rate)
            progress.step += 1
            progress.loss += loss * len(labels)
            progress.right += right
            progress.images += len(labels)
        train_seconds = time.monotonic() - started
        observer.mode(training=False)
        valid_loss, valid_accuracy = evaluate(network, criterion, batches)
        seconds = time.monotonic() - started
        done = Epoch(
            epoch=epoch,
            train_loss=progress.loss / progress.images,
            train_accuracy=progress.right / progress.images,
            valid_loss=valid_loss,
            valid_accuracy=valid_accuracy,
            learning_rate=rate,
            images_per_second=(progress.step - first) * hyperparameters.batch_size / train_seconds,
            seconds=seconds,
        )
        training.history.append(done)
        if training.best is None or _rank(done) > _rank(training.best):
            training.best = done
            training.best_state = {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
        print(epoch_line(done, epochs, seconds_left=(epochs - epoch) * seconds), flush=True)
        progress = _Progress(epoch + 1)
        if checkpoints and epoch < epochs and time.monotonic() - saved_at >= CHECKPOINT_SECONDS:
            checkpoints.save(_state(network, optimizer, training, progress))
            saved_at = time.monotonic()
    network.load_state_dict(training.best_state)
    network.eval()
    return training


def train_one_step(
    network: nn.Module,
    criterion: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: torch.Tensor,
    labels: torch.Tensor,
) -> tuple[float, int]:
    """Take a step; return the batch's mean loss and the number of its images that were classified right before it."""
    optimizer.zero_grad(set_to_none=True)
    logits = network(inputs)
    loss = criterion(logits, labels)
    loss.backward()
    optimizer.step()
    return float(loss.detach()), int((logits.detach().argmax(1) == labels).sum())


@torch.no_grad()
def evaluate(network: nn.Module, criterion: nn.Module, batches: Batches) -> tuple[float, float]:
    """Return mean loss and accuracy on the validation split."""
    network.eval()
    total, right, images = 0.0, 0, 0
    for inputs, labels in batches.valid():
        logits = network(inputs)
        total += float(criterion(logits, labels)) * len(labels)
        right += int((logits.argmax(1) == labels).sum())
        images += len(labels)
    return total / images, right / images


def schedule(step: int, steps: int) -> float:
    """Return the share of the learning rate at a step from 0: a linear warm-up, then a cosine to nothing.

    Loshchilov and Hutter 2017 (SGDR), with the warm-up of Goyal et al. 2017.
    """
    warm_up = max(1, round(steps * WARM_UP))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step + 1 - warm_up) / (steps + 1 - warm_up)))


def epoch_line(epoch: Epoch, epochs: int, seconds_left: float) -> str:
    """Return the line that the job prints; SageMaker reads its metrics from it by regular expressions."""
    return (
        f"epoch {epoch.epoch}/{epochs} train_loss={epoch.train_loss:.4f} train_accuracy={epoch.train_accuracy:.4f} "
        f"valid_loss={epoch.valid_loss:.4f} valid_accuracy={epoch.valid_accuracy:.4f} "
        f"learning_rate={epoch.learning_rate:.1e} images_per_second={epoch.images_per_second:.0f} "
        f"seconds_left={seconds_left:.0f}"
    )


def final_line(best: Epoch) -> str:
    """Return the last line of a training: SageMaker keeps the last value of a metric as the job's."""
    return f"final valid_accuracy={best.valid_accuracy:.4f} (epoch {best.epoch})"


@dataclass
class _Progress:
    """How far the current epoch is, and its sums so far."""

    epoch: int = 1
    step: int = 0
    loss: float = 0.0
    right: int = 0
    images: int = 0


def _rank(epoch: Epoch) -> tuple[float, float]:
    return epoch.valid_accuracy, -epoch.valid_loss


def _state(
    network: nn.Module, optimizer: torch.optim.Optimizer, training: Training, progress: _Progress
) -> dict[str, Any]:
    return {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": [asdict(epoch) for epoch in training.history],
        "best": training.best.epoch if training.best else 0,
        "best_state": training.best_state,
        "progress": asdict(progress),
        "random": torch.get_rng_state(),
    }


def _restore(
    state: dict[str, Any], network: nn.Module, optimizer: torch.optim.Optimizer, training: Training
) -> _Progress:
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    training.history = [Epoch(**epoch) for epoch in state["history"]]
    training.best = training.history[state["best"] - 1] if state["best"] else None
    training.best_state = state["best_state"]
    torch.set_rng_state(state["random"])
    return _Progress(**state["progress"])
