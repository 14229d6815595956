"""The training loop: AdamW under a warm-up and a cosine, the best epoch by validation accuracy kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from averaging import MovingAverage
from batches import Batches, cut_batches
from checkpoint import Checkpoints
from depthwise import FastDepthwise
from distributed import Processes
from history import Epoch, Training, epoch_line
from job import JobError
from observer import NoObserver, Observer
from optimizer import AdamW, Group
from recipe import Phase
from stages import train_unfrozen
from torch import nn
from torch.nn import functional

WARM_UP = 0.2  # of all steps
CHECKPOINT_SECONDS = 120
"""Between two checkpoints: each holds the network several times and is copied to S3. SIGTERM, which announces that an
instance is taken away, saves at once; so this much is lost only where nothing announces the end."""


class TrainingDoomed(JobError):
    """Going on would be in vain: `rule` says by which rule's condition."""

    def __init__(self, rule: str, step: int, message: str):
        super().__init__(message)
        self.rule = rule
        self.step = step


class TrainingDiverged(TrainingDoomed):
    """The loss is no number any more: nothing that follows would mean anything."""

    def __init__(self, step: int, epoch: int, loss: float, learning_rate: float):
        super().__init__(
            "ExplodingTensor",
            step,
            f"the loss became {loss} at step {step} (epoch {epoch}), learning_rate {learning_rate:g}: lower it",
        )
        self.loss = loss


class TrainingStopped(Exception):
    """SIGTERM came; where there is a folder for checkpoints, the training can go on from here."""


@dataclass(frozen=True)
class Surroundings:
    """What a training happens in. What it comes to does not depend on it, save for rounding."""

    checkpoints: Checkpoints | None = None
    observer: Observer = field(default_factory=NoObserver)
    stopping: Callable[[], bool] = lambda: False
    processes: Processes = field(default_factory=Processes)
    precision: torch.dtype = torch.float32


def fit(
    network: nn.Module,
    criterion: nn.CrossEntropyLoss,
    batches: Batches,
    phase: Phase,
    groups: Sequence[Group],
    seed: int,
    around: Surroundings,
    training: Training | None = None,
    epochs_after: int = 0,
) -> Training:
    """Train `network` and leave it with the weights of its best epoch: highest validation accuracy, then lowest loss.

    training: what earlier phases came to, the network as they left it; it competes for the best epoch. epochs_after:
    epochs of later phases, for the lines that are printed. Same seed, same machine, same number of threads: same
    result, also when resumed from a checkpoint. Raises DatasetError if the batch is larger than the training split,
    TrainingDiverged, TrainingStopped.
    """
    training = training or Training()
    if training.best:
        training.best_state = _copy_of(network)
    earlier = len(training.history)
    run = _Run(network, criterion, batches, phase, groups, seed, around, training, earlier)
    run.resume()
    around.observer.start(network, criterion, batches, phase, run.numbers, run.done)
    epochs = earlier + phase.epochs + epochs_after
    while run.progress.epoch <= phase.epochs and not training.stopped_early:
        started = time.monotonic()
        done = run.one_epoch()
        training.history.append(done)
        if training.best is None or _rank(done) > _rank(training.best):
            training.best = done
            with run.average.in_place():
                training.best_state = _copy_of(network)
        if around.processes.is_first:
            seconds_left = phase.epochs_left(run.progress.epoch - 1) * (time.monotonic() - started)
            print(epoch_line(done, epochs, seconds_left), flush=True)
        since_best = done.epoch - max(training.best.epoch, earlier)
        training.stopped_early = bool(phase.patience) and since_best >= phase.patience and done.epoch < epochs
        if training.stopped_early and around.processes.is_first:
            print(f"stopped early: no better epoch since {since_best}", flush=True)
        run.progress = _Progress(run.progress.epoch + 1)
        run.save_if_due()
    training.steps += run.done
    network.load_state_dict(training.best_state)
    network.eval()
    return training


@torch.no_grad()
def evaluate(
    network: nn.Module, criterion: nn.CrossEntropyLoss, batches: Batches, around: Surroundings
) -> tuple[float, float]:
    """Return mean loss, without smoothing or weights, and accuracy on the validation split."""
    network.eval()
    trained_with = criterion.label_smoothing, criterion.weight
    criterion.label_smoothing, criterion.weight = 0.0, None
    total, right, images = 0.0, 0, 0
    try:
        for inputs, labels in batches.valid(around.processes.share(range(batches.valid_images))):
            with computing_in(around.precision, inputs.device):
                logits = network(inputs).float()
            total += float(criterion(logits, labels)) * len(labels)
            right += int((logits.argmax(1) == labels).sum())
            images += len(labels)
    finally:
        criterion.label_smoothing, criterion.weight = trained_with
    all_loss, all_right, all_images = around.processes.total(total, right, images)
    return all_loss / all_images, all_right / all_images


def computing_in(precision: torch.dtype, device: torch.device) -> ExitStack:
    """Return a context in which a network computes in `precision`: autocast, where it is not float32."""
    stack = ExitStack()
    if precision != torch.float32:
        stack.enter_context(torch.autocast(device.type, dtype=precision))
        if device.type == "cpu":
            stack.enter_context(FastDepthwise())
    return stack


def schedule(step: int, steps: int) -> float:
    """Return the share of the learning rate at a step from 0: a linear warm-up, then a cosine to nothing.

    Loshchilov and Hutter 2017 (SGDR), with the warm-up of Goyal et al. 2017.
    """
    warm_up = max(1, round(steps * WARM_UP))
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step + 1 - warm_up) / (steps + 1 - warm_up)))


@dataclass
class _Progress:
    """How far the current epoch of the phase is, from 1, and its sums so far; loss is the plain one."""

    epoch: int = 1
    step: int = 0
    loss: float = 0.0
    right: int = 0
    images: int = 0


class _Run:
    """One phase under way: what changes from step to step, and how it is saved."""

    def __init__(
        self,
        network: nn.Module,
        criterion: nn.CrossEntropyLoss,
        batches: Batches,
        phase: Phase,
        groups: Sequence[Group],
        seed: int,
        around: Surroundings,
        training: Training,
        earlier: int,
    ):
        self.network, self.criterion, self.batches, self.phase = network, criterion, batches, phase
        self.seed, self.around, self.training, self.earlier = seed, around, training, earlier
        self.groups = groups
        self.optimizer = AdamW(groups, phase.eps)
        self.average = MovingAverage(network, phase.averaging, phase.start_share)
        self.progress = _Progress()
        self.steps = len(cut_batches(batches.train_images, phase.batch_size, torch.Generator()))
        self.numbers = range(training.steps, training.steps + self.steps * phase.epochs)
        self.wrapped = around.processes.wrap(network)
        self._saved_at = time.monotonic()

    @property
    def done(self) -> int:
        """Steps of the phase that were taken."""
        return (self.progress.epoch - 1) * self.steps + self.progress.step

    def one_epoch(self) -> Epoch:
        """Train for what is left of the current epoch, then validate."""
        phase, progress, processes = self.phase, self.progress, self.around.processes
        seed = (self.seed << 16) + progress.epoch
        if not progress.step:
            torch.manual_seed(seed)  # of dropout: an epoch depends on no other
        order = cut_batches(self.batches.train_images, phase.batch_size, torch.Generator().manual_seed(seed))
        train_unfrozen(self.network, phase.keep_statistics)
        self.around.observer.mode(training=True)
        size_px = phase.size_px(progress.epoch - 1)
        started, first, waited = time.monotonic(), progress.step, self.batches.waited_seconds
        shares = [processes.share(batch) for batch in order[first:]]
        batches = self.batches.train(shares, self.earlier + progress.epoch, size_px)
        for inputs, labels in self.around.observer.batches(batches):
            self._stop_if_asked()
            rate = self._step(inputs, labels)
        train_seconds = time.monotonic() - started
        processes.align([*self.network.buffers(), *self.average.tensors()])
        self.around.observer.mode(training=False)
        with self.average.in_place():
            valid_loss, valid_accuracy = evaluate(self.network, self.criterion, self.batches, self.around)
        self.around.observer.evaluated(valid_loss, valid_accuracy)
        return Epoch(
            epoch=self.earlier + progress.epoch,
            phase=phase.name,
            train_loss=progress.loss / progress.images,
            train_accuracy=progress.right / progress.images,
            valid_loss=valid_loss,
            valid_accuracy=valid_accuracy,
            learning_rate=rate * max(group.learning_rate for group in self.groups),
            image_size_px=size_px,
            images_per_second=(progress.step - first) * phase.batch_size / train_seconds,
            waiting_share=min(1.0, (self.batches.waited_seconds - waited) / train_seconds),
            seconds=time.monotonic() - started,
        )

    def _step(self, inputs: torch.Tensor, labels: torch.Tensor) -> float:
        """Take a step; return the share of the learning rates that it was taken at."""
        phase, progress, processes = self.phase, self.progress, self.around.processes
        share = schedule(self.done, len(self.numbers))
        self.optimizer.zero_grad()
        with computing_in(self.around.precision, inputs.device):
            logits = self.wrapped(inputs).float()
        loss = self.criterion(logits, labels)
        weight = processes.weight(*self._counts(labels))
        (loss * weight).backward()
        self.around.observer.before_update()
        self.optimizer.step(share)
        self.around.observer.after_update()
        self.average.update()
        right = int((logits.detach().argmax(1) == labels).sum())
        plain = _plain_loss(self.criterion, logits.detach(), labels, loss.detach())
        sums = float(loss.detach()) * weight / processes.number, float(plain) * len(labels), right
        all_loss, plain_total, all_right = processes.total(*sums)
        size, rate = phase.batch_size, max(group.learning_rate for group in self.groups)
        self.around.observer.step(all_loss, plain_total / size, float(all_right) / size, share * rate)
        if not math.isfinite(all_loss):
            epoch = self.earlier + progress.epoch
            raise TrainingDiverged(self.numbers[self.done], epoch, all_loss, phase.learning_rate)
        progress.step += 1
        progress.loss += plain_total
        progress.right += int(all_right)
        progress.images += phase.batch_size
        return share

    def _counts(self, labels: torch.Tensor) -> tuple[float, float]:
        """Return by what the loss is a mean, of this process's share and of the batch: images, or their weights."""
        if self.criterion.weight is None:
            return len(labels), self.phase.batch_size
        own = float(self.criterion.weight[labels].sum())
        return own, *self.around.processes.total(own)

    def _stop_if_asked(self) -> None:
        """Save and leave, all processes at the same step, if any of them was told to stop."""
        (stops,) = self.around.processes.total(float(self.around.stopping()))
        if stops:
            self._save()
            epoch = self.earlier + self.progress.epoch
            raise TrainingStopped(f"stopped in epoch {epoch} after {self.progress.step} of {self.steps} steps")

    def save_if_due(self) -> None:
        """Save between two epochs, if the last checkpoint is old enough."""
        if self.progress.epoch <= self.phase.epochs and time.monotonic() - self._saved_at >= CHECKPOINT_SECONDS:
            self._save()
            self._saved_at = time.monotonic()

    def resume(self) -> None:
        """Go on from the newest checkpoint, if there is one of this training."""
        checkpoints, processes = self.around.checkpoints, self.around.processes
        state = processes.first_ones(checkpoints.load() if checkpoints and processes.is_first else None)
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state["average"])
        self.training.history = [Epoch(**epoch) for epoch in state["history"]]
        self.training.best = self.training.history[state["best"] - 1] if state["best"] else None
        self.training.best_state = state["best_state"]
        self.training.stopped_early = state["stopped_early"]
        self.progress = _Progress(**state["progress"])
        torch.set_rng_state(state["random"])
        if self.around.processes.is_first:
            epoch = self.earlier + self.progress.epoch
            print(f"resumed at epoch {epoch} after {self.progress.step} of its {self.steps} steps", flush=True)

    def _save(self) -> None:
        if self.around.checkpoints is None or not self.around.processes.is_first:
            return
        self.around.checkpoints.save(
            {
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average.state_dict(),
                "history": [asdict(epoch) for epoch in self.training.history],
                "best": self.training.best.epoch if self.training.best else 0,
                "best_state": self.training.best_state,
                "stopped_early": self.training.stopped_early,
                "progress": asdict(self.progress),
                "random": torch.get_rng_state(),
            }
        )


def _plain_loss(
    criterion: nn.CrossEntropyLoss, logits: torch.Tensor, labels: torch.Tensor, loss: torch.Tensor
) -> torch.Tensor:
    """Return the loss without smoothing or weights, which is comparable with what `evaluate` returns."""
    if not criterion.label_smoothing and criterion.weight is None:
        return loss
    return functional.cross_entropy(logits, labels)


def _rank(epoch: Epoch) -> tuple[float, float]:
    return epoch.valid_accuracy, -epoch.valid_loss


def _copy_of(network: nn.Module) -> dict[str, Any]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
