"""A moving average of a network's weights, which validates better than any single step's.

Polyak averaging with the growing window of TensorFlow's ExponentialMovingAverage: early steps do not weigh it down.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class MovingAverage:
    """The average of all floating point tensors of a network's state; `decay` 0 follows the network itself."""

    def __init__(self, network: nn.Module, decay: float):
        self._network = network
        self._decay = decay
        self._steps = 0
        self._average = _floats(network) if decay else {}
        self._average = {name: tensor.clone() for name, tensor in self._average.items()}

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
        kept = {name: tensor.clone() for name, tensor in current.items()}
        _copy(self._average, current)
        try:
            yield
        finally:
            _copy(kept, current)

    def state_dict(self) -> dict[str, object]:
        """Return what a checkpoint needs."""
        return {"steps": self._steps, "average": self._average}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from `state`."""
        self._steps = int(str(state["steps"]))
        _copy(state["average"], self._average)


def _floats(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in network.state_dict().items() if tensor.dtype.is_floating_point}


@torch.no_grad()
def _copy(source: dict[str, torch.Tensor], target: dict[str, torch.Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])
