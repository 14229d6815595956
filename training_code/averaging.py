"""A moving average of a network's weights: while the learning rate is high, it validates better than a step's own.

Polyak averaging with the growing window of TensorFlow's ExponentialMovingAverage: early steps do not weigh it down. The
average may be drawn back to where the training began, which keeps what fine-tuning forgets (Wortsman et al. 2022,
Robust fine-tuning of zero-shot models).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class MovingAverage:
    """The average of all floating point tensors of a network's state; `decay` 0 follows the network itself.

    start_share: how much of what the block `in_place` sees is the network that it began with.
    """

    def __init__(self, network: nn.Module, decay: float, start_share: float = 0.0):
        self._network = network
        self._decay = decay
        self._start_share = start_share
        self._steps = 0
        self._average = _copied(_floats(network)) if decay else {}
        self._start = _copied(self._average) if start_share else {}

    @torch.no_grad()
    def update(self) -> None:
        """Take up the network's weights after a step."""
        if not self._decay:
            return
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        current = _floats(self._network)
        torch._foreach_lerp_(list(self._average.values()), [current[name] for name in self._average], 1 - decay)
        self._steps += 1

    def tensors(self) -> list[torch.Tensor]:
        """Return the averages."""
        return list(self._average.values())

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the network have the averaged weights inside the block."""
        if not self._decay:
            yield
            return
        current = _floats(self._network)
        kept = _copied(current)
        _copy(self._average, current)
        if self._start:
            torch._foreach_lerp_(list(current.values()), [self._start[name] for name in current], self._start_share)
        try:
            yield
        finally:
            _copy(kept, current)

    def state_dict(self) -> dict[str, object]:
        """Return what a checkpoint needs."""
        return {"steps": self._steps, "average": self._average, "start": self._start}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from `state`."""
        self._steps = int(str(state["steps"]))
        _copy(state["average"], self._average)
        _copy(state["start"], self._start)


def _floats(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in network.state_dict().items() if tensor.dtype.is_floating_point}


def _copied(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


@torch.no_grad()
def _copy(source: dict[str, torch.Tensor], target: dict[str, torch.Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])
