"""Batches for the training loop: images, augmented and normalised, or frozen features."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch
from data import DatasetError
from pictures import Pictures
from PIL import Image

VALID_BATCH = 64
AHEAD = 2  # batches that are made while the network is busy with one

Pair = tuple[torch.Tensor, torch.Tensor]


class Batches(Protocol):
    """What the training loop needs of a data set."""

    train_images: int
    valid_images: int
    waited_seconds: float
    """In all, for training batches that were not ready."""

    def train(self, batches: Sequence[Sequence[int]], epoch: int, size_px: int | None) -> Iterator[Pair]:
        """Yield inputs and labels of each list of training indices, as they are in this epoch."""
        ...

    def valid(self, indices: Sequence[int]) -> Iterator[Pair]:
        """Yield inputs and labels of these validation images, in order."""
        ...


class ImageBatches:
    """Images: (B, 3, S, S) float32, channels_last; made by threads of their own, ahead of the network."""

    def __init__(
        self,
        train: Pictures,
        train_labels: Sequence[int],
        valid: Pictures,
        valid_labels: Sequence[int],
        preprocessing: Mapping[str, Any],
        augment: Callable[[np.ndarray, int, int, int], np.ndarray],
        device: torch.device,
    ):
        """augment: what makes a square, (S, S, 3) uint8, of a picture, the side, the epoch and the image's index."""
        self.train_images, self.valid_images = len(train), len(valid)
        self.waited_seconds = 0.0
        self._train, self._train_labels = train, torch.tensor(train_labels)
        self._valid, self._valid_labels = valid, torch.tensor(valid_labels)
        self._preprocessing, self._augment, self._device = preprocessing, augment, device

    def train(self, batches: Sequence[Sequence[int]], epoch: int, size_px: int | None) -> Iterator[Pair]:
        side = size_px or self._preprocessing["image_size_px"]

        def make(index: int) -> np.ndarray:
            return self._augment(self._train[index], side, epoch, index)

        for indices, squares in zip(batches, self._ahead(batches, make), strict=True):
            yield (
                normalise(squares, self._preprocessing, self._device),
                self._train_labels[list(indices)].to(self._device),
            )

    def valid(self, indices: Sequence[int]) -> Iterator[Pair]:
        waited = self.waited_seconds
        batches = [indices[start : start + VALID_BATCH] for start in range(0, len(indices), VALID_BATCH)]
        for batch, squares in zip(batches, self._ahead(batches, self._valid.__getitem__), strict=True):
            yield (
                normalise(squares, self._preprocessing, self._device),
                self._valid_labels[list(batch)].to(self._device),
            )
        self.waited_seconds = waited

    def _ahead(self, batches: Sequence[Sequence[int]], make: Callable[[int], np.ndarray]) -> Iterator[np.ndarray]:
        with ThreadPoolExecutor(workers()) as pool:
            waiting: list[list[Future[np.ndarray]]] = []
            try:
                for indices in batches:
                    waiting.append([pool.submit(make, index) for index in indices])
                    if len(waiting) > AHEAD:
                        yield self._gather(waiting.pop(0))
                while waiting:
                    yield self._gather(waiting.pop(0))
            finally:  # who stops early waits for none of them
                pool.shutdown(wait=False, cancel_futures=True)

    def _gather(self, futures: list[Future[np.ndarray]]) -> np.ndarray:
        started = time.monotonic()
        squares = np.stack([future.result() for future in futures])
        self.waited_seconds += time.monotonic() - started
        return squares


class FeatureBatches:
    """Frozen features: (B, D) float32."""

    waited_seconds = 0.0

    def __init__(self, train: Pair, valid: Pair, device: torch.device):
        self.train_images, self.valid_images = len(train[0]), len(valid[0])
        self._train = train[0].to(device), train[1].to(device)
        self._valid = valid[0].to(device), valid[1].to(device)

    def train(self, batches: Sequence[Sequence[int]], epoch: int, size_px: int | None) -> Iterator[Pair]:
        del epoch, size_px  # features are the same in every epoch
        for indices in batches:
            yield self._train[0][list(indices)], self._train[1][list(indices)]

    def valid(self, indices: Sequence[int]) -> Iterator[Pair]:
        if indices:  # of fewer images than processes, one has none
            yield self._valid[0][list(indices)], self._valid[1][list(indices)]


def augmentation_of(
    name: str, mirror: bool, seed: int, preprocessing: Mapping[str, Any]
) -> Callable[[np.ndarray, int, int, int], np.ndarray]:
    """Return what makes a training square of a picture: `gentle` or `cut` of augmentation.py."""
    from augmentation import chance_of, cut, gentle, mirrored
    from data import fill_of

    def augment(pixels: np.ndarray, side: int, epoch: int, index: int) -> np.ndarray:
        chance = chance_of(seed, epoch, index)
        if mirror and chance.random() < 0.5:
            pixels = np.ascontiguousarray(mirrored(pixels))
        picture = Image.fromarray(pixels)
        if name == "cut":
            return np.array(cut(picture, side, chance))
        return np.array(gentle(picture, side, chance, fill_of(preprocessing)))

    return augment


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


@functools.cache
def workers() -> int:
    """Return how many threads make images: as many as the network computes with, and not more than there are cores."""
    return max(1, min(torch.get_num_threads(), os.cpu_count() or 1))
