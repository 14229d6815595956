"""Trainings of a small network on pictures of noise, seconds each: healthy, or with one fault."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from debugging import start_debugging
from documents import read_document
from engine import Surroundings, TrainingDoomed, fit
from history import Training
from optimizer import Group
from recipe import Phase
from torch import nn

CLASSES = 4
SIDE = 8


class Pictures:
    """Batches of pictures that a class's pattern shows through; what a fault changes, it changes here."""

    def __init__(self, train: int = 640, valid: int = 200, noise: float = 1.5, seed: int = 0):
        generator = torch.Generator().manual_seed(seed)
        patterns = torch.randn(CLASSES, 3, SIDE, SIDE, generator=generator)

        def draw(number: int) -> tuple[torch.Tensor, torch.Tensor]:
            labels = torch.arange(number) % CLASSES
            return patterns[labels] + noise * torch.randn(number, 3, SIDE, SIDE, generator=generator), labels

        self.generator = generator
        self.images, self.labels = draw(train)
        self.valid_pictures, self.valid_labels = draw(valid)
        self.evaluations = 0

    @property
    def train_images(self) -> int:
        return len(self.images)

    @property
    def valid_images(self) -> int:
        return len(self.valid_pictures)

    waited_seconds = 0.0

    def train(self, batches: Sequence[Sequence[int]], *_: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for batch in batches:
            yield self.images[batch], self.labels[batch]

    def valid(self, _: Sequence[int]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        yield self.valid_pictures, self.valid_labels


def make_network(activation: Callable[[], nn.Module] = nn.ReLU, hidden: int = 32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        activation(),
        nn.Flatten(),
        nn.Linear(8 * (SIDE - 2) ** 2, hidden),
        activation(),
        nn.Linear(hidden, CLASSES),
    )


def run(
    folder: Path,
    pictures: Any = None,
    network: nn.Module | None = None,
    *,
    learning_rate: float = 1e-3,
    epochs: int = 8,
    batch_size: int = 32,
    weight_decay: float = 1e-2,
    stopping: tuple[str, ...] = (),
    parameters: dict[str, dict[str, Any]] | None = None,
    save_interval_steps: int = 10,
    watch: Callable[[Any], None] | None = None,
    observers: Callable[[Any], Any] = lambda debugging: debugging,
    head_epochs: int = 0,
) -> dict[str, Any]:
    """Train under hooks and rules at their defaults, after a head if it has epochs; return findings.json."""
    network = network or make_network()
    debugging = start_debugging(True, [folder], save_interval_steps, stopping, parameters or {})
    if watch:
        watch(debugging)
    doomed, training, observer = None, Training(), observers(debugging)
    try:
        if head_epochs:
            train(observer, make_head(), Pictures(), epochs=head_epochs, training=training)
        train(
            observer,
            network,
            pictures or Pictures(),
            learning_rate,
            epochs,
            batch_size,
            weight_decay,
            training=training,
        )
    except TrainingDoomed as error:
        doomed = error
    debugging.write_findings(doomed)
    return read_document(folder / "findings.json", "findings")


def train(
    observer: Any,
    network: nn.Module,
    pictures: Any,
    learning_rate: float = 1e-3,
    epochs: int = 8,
    batch_size: int = 32,
    weight_decay: float = 1e-2,
    name: str = "whole",
    training: Training | None = None,
) -> None:
    """Train with the product's own loop, after what other phases came to."""
    phase = Phase(name, learning_rate, 1e-8, weight_decay, batch_size, epochs)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [Group(trained, learning_rate, weight_decay)]
    fit(network, nn.CrossEntropyLoss(), pictures, phase, groups, 0, Surroundings(observer=observer), training)


def make_head() -> nn.Sequential:
    """Return the network of a first phase: on its own, a healthy one."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 16), nn.ReLU(), nn.Linear(16, CLASSES))


def issues(document: dict[str, Any]) -> set[str]:
    """Return the rules that found something."""
    assert not [one for one in document["findings"] if one["status"] == "Error"], document["findings"]
    return {one["rule"] for one in document["findings"] if one["status"] == "IssuesFound"}


def configure_hook(folder: Path, monkeypatch: pytest.MonkeyPatch, configuration: dict[str, Any]) -> None:
    """Give the job a debughookconfig.json, by which tensors go to a folder of their own."""
    (folder / "config").mkdir()
    given = {"LocalPath": str(folder / "tensors"), **configuration}
    (folder / "config/debughookconfig.json").write_text(json.dumps(given))
    monkeypatch.setenv("SM_INPUT_CONFIG_DIR", str(folder / "config"))


def statuses(document: dict[str, Any]) -> dict[str, str]:
    """Return each rule's status."""
    return {finding["rule"]: finding["status"] for finding in document["findings"]}


def told(document: dict[str, Any], rule: str) -> dict[str, Any]:
    """Return a rule's finding."""
    return next(finding for finding in document["findings"] if finding["rule"] == rule)


def zero(network: nn.Module) -> nn.Module:
    """Every parameter starts from zero."""
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    return network


def shrunk(network: nn.Module, factor: float) -> nn.Module:
    """Every weight starts `factor` times as large."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(factor)
    return network


class Detached(nn.Module):
    """A layer that no gradient comes to, though its parameters want one."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layer(images).detach()
