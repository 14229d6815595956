"""Several processes that train one network: torchrun starts them, each takes its share of every batch.

One process needs none of this, and does not import torch.distributed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Processes:
    """This process's number, from 0, and how many there are."""

    rank: int = 0
    number: int = 1

    @property
    def is_first(self) -> bool:
        """Whether it is this one that speaks, saves and is watched."""
        return self.rank == 0

    def share(self, items: Sequence[Any]) -> list[Any]:
        """Return this process's share of a batch or a split: sizes differ by one at most."""
        return list(items[self.rank :: self.number])

    def weight(self, own: float, total: float) -> float:
        """Return what to multiply this process's mean loss by, for the mean of gradients to be the whole batch's."""
        return own * self.number / total

    def wrap(self, network: nn.Module) -> nn.Module:
        """Return the network so that its backward pass averages gradients over the processes."""
        if self.number == 1:
            return network
        from torch.nn.parallel import DistributedDataParallel

        return DistributedDataParallel(network)

    def total(self, *values: float) -> tuple[float, ...]:
        """Return the sums of values over the processes."""
        if self.number == 1:
            return values
        sums = torch.tensor(values, dtype=torch.float64, device=_device())
        torch.distributed.all_reduce(sums)
        return tuple(sums.tolist())

    def first_ones(self, value: Any) -> Any:
        """Return what the first process has."""
        if self.number == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]

    def align(self, tensors: Sequence[torch.Tensor]) -> None:
        """Give every process the first one's tensors, in place: batch norm's statistics differ from share to share."""
        for tensor in tensors if self.number > 1 else ():
            torch.distributed.broadcast(tensor, src=0)

    def leave(self) -> None:
        """End what `join` began."""
        if self.number > 1:
            torch.distributed.destroy_process_group()


def join() -> Processes:
    """Join the processes that torchrun started with this one: its variables say which; without them it is alone."""
    number = int(os.environ.get("WORLD_SIZE", "1"))
    if number == 1:
        return Processes()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return Processes(int(os.environ["RANK"]), number)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
