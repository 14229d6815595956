"""What may watch a training: the calls that the training loop makes, and what makes nothing of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from batches import Batches
from recipe import Phase
from torch import nn


class Observer(Protocol):
    """What watches a training: the debugger's hooks, the profiler, or nothing. `step` and `evaluated` may end it."""

    @property
    def seconds(self) -> float:
        """How long it has taken so far, the hooks included that it has in the network."""

    def start(
        self, network: nn.Module, criterion: nn.Module, batches: Batches, phase: Phase, steps: range, done: int
    ) -> None:
        """Hear what is about to be trained. steps: the phase's, of the whole training; done: what a checkpoint held."""

    def mode(self, training: bool) -> None:
        """Hear whether the next forward passes train or validate."""

    def batches(
        self, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Pass an epoch's batches on."""

    def before_update(self) -> None:
        """Hear that the gradients are final, and the optimiser's turn."""

    def after_update(self) -> None:
        """Hear that the optimiser is done."""

    def step(self, loss: float, plain_loss: float, accuracy: float, learning_rate: float) -> None:
        """Hear what a step came to. plain_loss: without smoothing or weights, as an evaluation's."""

    def evaluated(self, loss: float, accuracy: float) -> None:
        """Hear what a validation came to."""


class NoObserver:
    """Watches nothing."""

    @property
    def seconds(self) -> float:
        """Return 0."""
        return 0.0

    def start(
        self, network: nn.Module, criterion: nn.Module, batches: Batches, phase: Phase, steps: range, done: int
    ) -> None:
        """Do nothing."""

    def mode(self, training: bool) -> None:
        """Do nothing."""

    def batches(
        self, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Pass them on."""
        return batches

    def before_update(self) -> None:
        """Do nothing."""

    def after_update(self) -> None:
        """Do nothing."""

    def step(self, loss: float, plain_loss: float, accuracy: float, learning_rate: float) -> None:
        """Do nothing."""

    def evaluated(self, loss: float, accuracy: float) -> None:
        """Do nothing."""
