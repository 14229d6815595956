"""What is worked out of a training's tensors before it is saved: reductions, activity of units, facts of the inputs."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from saved import (
    CHANNEL_MAX,
    CHANNEL_MEAN,
    CHANNEL_MIN,
    LABEL_COUNTS,
    RIGHT_COUNTS,
    SEPARATION,
    Reductions,
)
from torch import nn
from torch.nn import functional

Observed: TypeAlias = torch.Tensor | np.ndarray | np.float32

POSITIVE = (0.0, math.inf)
RANGES: dict[type[nn.Module], tuple[float, float]] = {
    nn.ReLU: POSITIVE,
    nn.ReLU6: POSITIVE,
    nn.Tanh: (-9.4999, 9.4999),
    nn.Sigmoid: (-23.0, 16.99999),
}
"""Within which a unit is active: outputs of ReLUs, inputs of the others (AWS's defaults)."""

FEATURE_MAPS = 4  # dimensions of a batch of them
CANCELLED = 1e-3
"""Of the mean square: a variance below it is worked out again, as float32 has lost digits of the difference."""
ALL_FIELDS = frozenset({"minimum", "maximum", "mean", "absolute_mean", "variance", "l2"})
PIECE = 1 << 18
GRID = 32
FEWEST_PER_CLASS = 5


def reduce(tensor: torch.Tensor, fields: frozenset[str] = ALL_FIELDS) -> Reductions:
    """Return what is kept of a tensor: these fields of Reductions, and dimensions; NaN and infinities come through."""
    values = tensor.detach()
    if not values.is_floating_point() or values.dtype in (torch.float16, torch.bfloat16):
        values = values.float()
    size = values.numel()
    if not size:
        return Reductions(dimensions=values.dim())
    flat = _in_memory_order(values)
    sums = _sums(flat, fields)
    found: dict[str, float] = {name: sums[name] for name in ("minimum", "maximum") if name in fields}
    if "mean" in fields:
        found["mean"] = sums["total"] / size
    if "absolute_mean" in fields:
        found["absolute_mean"] = sums["sizes"] / size
    if "l2" in fields:
        too_large = math.isinf(sums["squares"])
        found["l2"] = float(torch.linalg.vector_norm(flat.double())) if too_large else math.sqrt(sums["squares"])
    if "variance" in fields:
        variance = sums["squares"] / size - (sums["total"] / size) ** 2
        little_left = not variance > CANCELLED * sums["squares"] / size
        found["variance"] = float(flat.double().var(correction=0)) if little_left else variance
    as_written = np.array([*found.values()], np.float32).tolist()
    return Reductions(**dict(zip(found, as_written, strict=True)), dimensions=values.dim())


def _sums(flat: torch.Tensor, fields: frozenset[str]) -> dict[str, float]:
    """Return what `fields` follow from, by passes of the kernels that are fast on a CPU.

    var_mean and L1 norms take ten times as long there.
    """
    found: dict[str, torch.Tensor] = {}
    if fields & {"minimum", "maximum"}:
        found["minimum"], found["maximum"] = torch.aminmax(flat)
    if fields & {"mean", "variance"}:
        found["total"] = flat.sum()
    if fields & {"l2", "variance"}:
        found["squares"] = torch.dot(flat, flat)
    if "absolute_mean" in fields:
        found["sizes"] = _sum_of_sizes(flat)
    return dict(zip(found, torch.stack([*found.values()]).tolist(), strict=True))


def _in_memory_order(values: torch.Tensor) -> torch.Tensor:
    """Return the values as a vector, in any order: without a copy for what is contiguous or channels_last."""
    if values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last):
        return values.permute(0, 2, 3, 1).flatten()
    return values.flatten()


def _sum_of_sizes(flat: torch.Tensor) -> torch.Tensor:
    """Return the sum of absolute values: on a CPU in pieces that stay in its cache."""
    pieces = flat.split(PIECE if flat.device.type == "cpu" else len(flat))
    scratch = torch.empty_like(pieces[0])
    return torch.stack([torch.abs(piece, out=scratch[: len(piece)]).sum() for piece in pieces]).sum()


class Activations:
    """Outputs of a network's layers, and of ReLU, tanh and sigmoid the share of the batch at which each unit acts.

    images: of feature maps, how many images of the batch are looked at, None for all. Each has many values of a unit.
    """

    def __init__(self, network: nn.Module, save: Callable[[str, Observed], None], images: int | None):
        modules = [(name, module) for name, module in network.named_modules() if not isinstance(module, nn.Identity)]
        leaves = [(name, module) for name, module in modules if name and not [*module.children()]]
        self._leaves = [(f"{name}_{module._get_name()}", module) for name, module in leaves]
        self._save, self._images = save, images
        self._attached: list[Any] = []
        self._calls: dict[str, int] = {}

    @property
    def patterns(self) -> list[str]:
        """Regular expressions of the names under which outputs are saved."""
        return [f"^{re.escape(name)}_output_" for name, _ in self._leaves]

    def attach(self) -> None:
        """Save what the next forward pass comes to, at once: a layer that works in place would write over it."""
        self._calls = {}
        for name, module in self._leaves:
            self._attached.append(module.register_forward_hook(functools.partial(self._look, name)))

    def detach(self) -> None:
        """Look no more."""
        while self._attached:
            self._attached.pop().remove()

    def _look(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, torch.Tensor) or not output.is_floating_point():
            return
        call = self._calls[name] = self._calls.get(name, -1) + 1
        images = self._images if output.dim() == FEATURE_MAPS else None
        self._save(f"{name}_output_{call}", output[:images])
        limits = RANGES.get(type(module))
        if limits and output.dim() > 1:
            values = output if limits is POSITIVE else inputs[0]
            self._save(f"{name}_{call}_activity", _activity(values[:images], limits))


def _activity(values: torch.Tensor, limits: tuple[float, float]) -> torch.Tensor:
    """Return the share of a batch's values at which each unit acts, (C,). values: (N, C) or (N, C, ...)."""
    units = values.detach().movedim(1, -1).flatten(0, -2)
    low, high = limits
    active = units.sign() if limits is POSITIVE else (units > low) & (units < high)
    return active.float().mean(0)


class Inputs:
    """Facts of images and labels, summed up over a network's training."""

    def __init__(self) -> None:
        self._counts: torch.Tensor | None = None
        self._right: torch.Tensor | None = None
        self._latest: torch.Tensor | None = None
        self._evaluating = False
        self._separation: _Separation | None = None

    def begin(self) -> None:
        """Begin with a network whose inputs may be others."""
        self._counts = self._right = None
        self._latest, self._evaluating, self._separation = None, False, _Separation()

    def evaluate(self) -> None:
        """Take what follows for an evaluation's, until it is asked for."""
        self._evaluating = True

    def seen(self, inputs: torch.Tensor) -> None:
        """Hear what goes into the network."""
        self._latest = inputs.detach() if isinstance(inputs, torch.Tensor) else None

    def answered(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Hear what the network made of it, and what would have been right: classes (N,), or shares of them (N, C)."""
        classes = (labels if labels.dim() == 1 else labels.argmax(1)).detach()
        if self._evaluating:
            if self._separation and self._latest is not None:
                self._separation.add(self._latest, classes, logits.shape[1])
            return
        right = classes[logits.detach().argmax(1) == classes]
        counts = [torch.bincount(one, minlength=logits.shape[1]) for one in (classes, right)]
        if self._counts is None or self._right is None:
            self._counts, self._right = counts
        else:
            self._counts += counts[0]
            self._right += counts[1]

    def of_training(self) -> dict[str, Observed]:
        """Return how often each label came and was right since the network's start, and the latest images' channels."""
        found: dict[str, Observed] = {}
        if self._counts is not None and self._right is not None:
            found |= {LABEL_COUNTS: self._counts.clone(), RIGHT_COUNTS: self._right.clone()}
        if self._latest is not None and self._latest.dim() == 4:
            channels = [channel.float().flatten() for channel in self._latest.unbind(1)]  # along them is a slow way
            lowest, highest = zip(*(torch.aminmax(channel) for channel in channels), strict=True)
            found |= {
                CHANNEL_MEAN: torch.stack([channel.mean() for channel in channels]),
                CHANNEL_MIN: torch.stack(lowest),
                CHANNEL_MAX: torch.stack(highest),
            }
        return found

    def of_evaluation(self) -> dict[str, Observed]:
        """Return of the first evaluation how far one spot of the inputs tells the class."""
        self._evaluating = False
        separation, self._separation = self._separation, None
        highest = separation.highest() if separation else None
        return {} if highest is None else {SEPARATION: np.float32(highest)}


class _Separation:
    """Sums by class of each cell of a grid over images, or of each feature."""

    def __init__(self) -> None:
        self._sums: torch.Tensor | None = None

    def add(self, inputs: torch.Tensor, classes: torch.Tensor, number: int) -> None:
        values = inputs.float()
        if values.dim() == 4 and max(values.shape[2:]) > GRID:
            values = functional.adaptive_avg_pool2d(values, GRID)
        values = values.flatten(1).double()
        if self._sums is None:
            self._sums = values.new_zeros(number, values.shape[1])
            self._squares, self._counts = values.new_zeros(values.shape[1]), values.new_zeros(number)
        self._sums.index_add_(0, classes, values)
        self._squares += values.square().sum(0)
        self._counts += torch.bincount(classes, minlength=number)

    def highest(self) -> float | None:
        """Return the highest epsilon squared of all cells; None for too few images."""
        if self._sums is None:
            return None
        present = self._counts > 0
        counts, sums = self._counts[present], self._sums[present]
        images, classes = float(counts.sum()), len(counts)
        if classes < 2 or images < FEWEST_PER_CLASS * classes:
            return None
        mean = sums.sum(0) / images
        total = self._squares - images * mean.square()
        between = (counts[:, None] * (sums / counts[:, None] - mean).square()).sum(0)
        varying = total > 1e-9 * self._squares.clamp(min=1e-9)
        if not varying.any():
            return None
        within = (1 - between[varying] / total[varying]) * (images - 1) / (images - classes)
        return float((1 - within).max().clamp(min=0))
