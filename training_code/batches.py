"""Batches for the training loop: images, augmented and normalised, or frozen features.

Augmentation is mild, and never mirrors: a mirrored 2, a left-hand glove or a text is another thing, and nothing in a
data set says whether its classes survive it. What every photograph survives is a slightly different point of view:
rotation up to 10 degrees, scale 0.85 to 1.15, shift up to 10 % of the side, brightness and contrast within 20 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from data import DatasetError, Squares
from torch.nn import functional

LARGEST_ANGLE = math.radians(10)
SCALES = (0.85, 1.15)
LARGEST_SHIFT = 0.2  # of half a side, the unit of grid_sample
LARGEST_LIGHT = 0.2
VALID_BATCH = 128


class Batches(Protocol):
    """What the training loop needs of a data set."""

    train_images: int
    valid_images: int

    def train(self, batches: list[list[int]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield inputs and labels of each list of training indices."""
        ...

    def valid(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield inputs and labels of the whole validation split, in order."""
        ...


class ImageBatches:
    """Images: (B, 3, S, S) float32, channels_last."""

    def __init__(
        self,
        train: Squares,
        train_labels: list[int],
        valid: Squares,
        valid_labels: list[int],
        preprocessing: Mapping[str, Any],
        device: torch.device,
    ):
        self.train_images, self.valid_images = len(train), len(valid)
        self._train, self._train_labels = train, torch.tensor(train_labels)
        self._valid, self._valid_labels = valid, torch.tensor(valid_labels)
        self._preprocessing, self._device = preprocessing, device

    def train(self, batches: list[list[int]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for indices, squares in zip(batches, self._train.batches(batches), strict=True):
            images = augment(normalise(squares, self._preprocessing, self._device))
            yield images, self._train_labels[indices].to(self._device)

    def valid(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        batches = [indices.tolist() for indices in torch.arange(self.valid_images).split(VALID_BATCH)]
        for indices, squares in zip(batches, self._valid.batches(batches), strict=True):
            yield normalise(squares, self._preprocessing, self._device), self._valid_labels[indices].to(self._device)


class FeatureBatches:
    """Frozen features: (B, D) float32."""

    def __init__(
        self,
        train: tuple[torch.Tensor, torch.Tensor],
        valid: tuple[torch.Tensor, torch.Tensor],
        device: torch.device,
    ):
        self.train_images, self.valid_images = len(train[0]), len(valid[0])
        self._train = tuple(tensor.to(device) for tensor in train)
        self._valid = tuple(tensor.to(device) for tensor in valid)

    def train(self, batches: list[list[int]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for indices in batches:
            yield self._train[0][indices], self._train[1][indices]

    def valid(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        yield self._valid[0], self._valid[1]


def cut_batches(images: int, batch_size: int, generator: torch.Generator) -> list[list[int]]:
    """Shuffle 0..images-1 and cut it into whole batches; the rest is left out of this epoch. Raises DatasetError."""
    if batch_size > images:
        raise DatasetError(
            f"batch_size is {batch_size}, but the training split has {images} images: "
            f"choose batch sizes of at most {images}"
        )
    order = torch.randperm(images, generator=generator)
    return order[: images - images % batch_size].view(-1, batch_size).tolist()


def normalise(squares: np.ndarray, preprocessing: Mapping[str, Any], device: torch.device) -> torch.Tensor:
    """Return squares (B, S, S, 3) uint8 as the network wants them, (B, 3, S, S) float32, channels_last."""
    pixels = torch.from_numpy(squares).to(device).permute(0, 3, 1, 2).float().div_(255)
    mean, std = (torch.tensor(preprocessing[name], device=device).view(1, 3, 1, 1) for name in ("mean", "std"))
    return pixels.sub_(mean).div_(std)


def augment(images: torch.Tensor) -> torch.Tensor:
    """Turn, scale, shift, and light each image of a batch a little differently, from torch's global generator."""
    number = len(images)

    def between(low: float, high: float) -> torch.Tensor:
        return (torch.rand(number) * (high - low) + low).to(images.device)

    angle, scale = between(-LARGEST_ANGLE, LARGEST_ANGLE), between(*SCALES)
    moves = torch.zeros(number, 2, 3, device=images.device)
    moves[:, 0, 0] = moves[:, 1, 1] = scale * angle.cos()
    moves[:, 1, 0] = scale * angle.sin()
    moves[:, 0, 1] = -moves[:, 1, 0]
    moves[:, 0, 2], moves[:, 1, 2] = between(-LARGEST_SHIFT, LARGEST_SHIFT), between(-LARGEST_SHIFT, LARGEST_SHIFT)
    grid = functional.affine_grid(moves, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    contrast, brightness = between(1 - LARGEST_LIGHT, 1 + LARGEST_LIGHT), between(-LARGEST_LIGHT, LARGEST_LIGHT)
    lit = moved * contrast.view(-1, 1, 1, 1) + brightness.view(-1, 1, 1, 1)
    return lit.contiguous(memory_format=torch.channels_last)
