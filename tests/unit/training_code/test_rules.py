"""Each rule at its default parameters: a seeded fault that fires it, and healthy trainings that fire none."""

from __future__ import annotations

import argparse
import functools
import inspect
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from options import rule_parameters
from review_tensors import review_tensors
from rules.review import RULES
from small_trainings import CLASSES, Detached, Pictures, issues, make_network, run, shrunk, zero
from torch import nn

ROOT = Path(__file__).parents[3]
DOCUMENT = ROOT / "docs" / "debugger.md"


def exploding(folder: Path) -> dict[str, Any]:
    """Learning rate 1e3."""
    return run(folder, learning_rate=1e3)


def unsteady(folder: Path) -> dict[str, Any]:
    """Learning rate 10."""
    return run(folder, learning_rate=10)


def infinite(folder: Path) -> dict[str, Any]:
    """Learning rate 1e38."""
    return run(folder, learning_rate=1e38)


def nan_image(folder: Path) -> dict[str, Any]:
    """NaN in one image."""
    pictures = Pictures()
    pictures.images[17, 0, 3, 3] = float("nan")
    return run(folder, pictures)


def tiny_rate(folder: Path) -> dict[str, Any]:
    """Learning rate 1e-12."""
    return run(folder, learning_rate=1e-12)


class Spoiled(Pictures):
    """Half of the labels are any from the fifth epoch on."""

    def train(self, batches: Sequence[Sequence[int]], *_: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        self.evaluations += 1
        for images, labels in super().train(batches):
            half = len(labels) // 2 if self.evaluations > 4 else 0
            yield images, torch.cat([labels[:half].roll(1), labels[half:]])


def spoiled(folder: Path) -> dict[str, Any]:
    """Half of the labels wrong from the fifth epoch on."""
    return run(folder, Spoiled(), epochs=12)


def zeros(folder: Path) -> dict[str, Any]:
    """Every parameter starts from zero."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.ReLU(), nn.Linear(32, CLASSES))
    return run(folder, network=zero(network))


def deep_sigmoids(folder: Path) -> dict[str, Any]:
    """Twelve layers of sigmoids."""
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(192, 32)]
    for _ in range(12):
        layers += [nn.Sigmoid(), nn.Linear(32, 32)]
    return run(folder, network=nn.Sequential(*layers, nn.Sigmoid(), nn.Linear(32, CLASSES)))


class Dying(Pictures):
    """Something happens to the network once half of its epochs are over."""

    def __init__(self, happens: Callable[[], Any]):
        super().__init__()
        self._happens = happens

    def valid(self, images: Sequence[int]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        self.evaluations += 1
        if self.evaluations == 4:
            self._happens()
        return super().valid(images)


def dying_relus(folder: Path) -> dict[str, Any]:
    """Biases of -100 before ReLUs from the fifth epoch on."""
    network = make_network()
    return run(folder, Dying(lambda: nn.init.constant_(network[4].bias, -100)), network=network)


def cut_off(folder: Path) -> dict[str, Any]:
    """A layer that no gradient comes to from the fifth epoch on."""
    network = make_network()
    return run(folder, Dying(lambda: network.__setitem__(0, Detached(network[0]))), network=network)


def dead_relus(folder: Path) -> dict[str, Any]:
    """Biases of -100 before ReLUs."""
    network = make_network()
    nn.init.constant_(network[4].bias, -100)
    return run(folder, network=network)


def saturated(folder: Path) -> dict[str, Any]:
    """Weights a thousand times as large before tanh."""
    network = make_network(nn.Tanh)
    shrunk(network[4], 1e3)
    return run(folder, network=network)


def large_weights(folder: Path) -> dict[str, Any]:
    """Weights of the last layer a hundred times as large."""
    network = make_network()
    shrunk(network[6], 100)
    return run(folder, network=network)


def frozen_by_mistake(folder: Path) -> dict[str, Any]:
    """A layer that no gradient comes to."""
    network = make_network()
    network[0] = Detached(network[0])
    return run(folder, network=network)


def shuffled_labels(folder: Path) -> dict[str, Any]:
    """The training labels shuffled."""
    pictures = Pictures(train=320)
    pictures.labels = pictures.labels[torch.randperm(320, generator=pictures.generator)]
    return run(folder, pictures, epochs=15, learning_rate=3e-3)


def imbalance(folder: Path) -> dict[str, Any]:
    """Class 0 a hundred times as often as each other."""
    pictures = Pictures(train=640)
    pictures.labels[:] = 0
    rare = torch.arange(0, 640, 103)[:6]
    pictures.labels[rare] = torch.arange(6) % 3 + 1
    return run(folder, pictures)


class Drifting(Pictures):
    """The validation images drift away from what the training images look like, evaluation by evaluation."""

    def valid(self, _: Sequence[int]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        self.evaluations += 1
        shift = max(0, self.evaluations - 3) * 0.5
        mixed = self.valid_pictures.roll(1, 0)
        yield self.valid_pictures + shift * mixed, self.valid_labels


def validation_drift(folder: Path) -> dict[str, Any]:
    """Validation images that drift away during the training."""
    return run(folder, Drifting(), epochs=12)


def too_long(folder: Path) -> dict[str, Any]:
    """Trained for ten times as long as there is something to learn, with a tenth of the labels wrong."""
    return run(folder, Drifting(), epochs=24)


def pixels(folder: Path, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    """Pixels from 0 to 255, not normalised."""
    pictures = Pictures()
    for name in ("images", "valid_pictures"):
        setattr(pictures, name, (getattr(pictures, name) * 40 + 128).clamp(0, 255))
    return run(folder, pictures, parameters=parameters)


def stamped(folder: Path) -> dict[str, Any]:
    """A pixel that says the label."""
    pictures = Pictures()
    pictures.images[:, 0, 0, 0] = pictures.labels.float()
    pictures.valid_pictures[:, 0, 0, 0] = pictures.valid_labels.float()
    return run(folder, pictures)


class Stalling(Pictures):
    """A loader whose second epoch waits for half an hour, by a clock of its own."""

    now = 0.0

    def train(self, batches: Sequence[Sequence[int]], *_: Any) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for number, batch in enumerate(super().train(batches)):
            self.now += 1801 if (self.evaluations, number) == (1, 3) else 0.1
            yield batch

    def valid(self, images: Sequence[int]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        self.evaluations += 1
        return super().valid(images)


def stalled(folder: Path) -> dict[str, Any]:
    """A loader that stalls for half an hour."""
    pictures = Stalling()

    def watch(debugging: Any) -> None:
        rule = debugging._review.stalled
        rule._clock, rule._latest = (lambda: pictures.now), 0.0

    return run(folder, pictures, watch=watch)


FAULTS = {
    exploding: {"WeightUpdateRatio", "TensorVariance"},
    unsteady: {"LossNotDecreasing"},
    infinite: {"ExplodingTensor"},
    nan_image: {"ExplodingTensor"},
    spoiled: {"LossNotDecreasing"},
    tiny_rate: {"WeightUpdateRatio", "LossNotDecreasing"},
    zeros: {"AllZero", "PoorWeightInitialization", "LossNotDecreasing"},
    deep_sigmoids: {"VanishingGradient"},
    dying_relus: {"VanishingGradient"},
    cut_off: {"VanishingGradient"},
    dead_relus: {"DeadRelu"},
    saturated: {"SaturatedActivation"},
    large_weights: {"TensorVariance"},
    frozen_by_mistake: {"UnchangedTensor"},
    shuffled_labels: {"ShuffledLabels"},
    imbalance: {"ClassImbalance"},
    validation_drift: {"Overfit"},
    too_long: {"Overtraining"},
    pixels: {"CheckInputImages"},
    stamped: {"LeakingLabels"},
    stalled: {"StalledTrainingRule"},
}
"""What each fault must fire; others may fire too, where the fault is theirs as well. docs/debugger.md has the table."""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_fault_fires_its_rules(fault: Any, tmp_path: Path) -> None:
    found = issues(fault(tmp_path))
    assert found >= FAULTS[fault]
    assert found == documented()[[*FAULTS].index(fault)][1]


def test_shuffled_labels_are_found_where_most_epochs_save_no_accuracy(tmp_path: Path) -> None:
    pictures = Pictures(train=32)
    pictures.labels = pictures.labels[torch.randperm(32, generator=pictures.generator)]
    assert "ShuffledLabels" in issues(run(tmp_path, pictures, epochs=300, save_interval_steps=0))


STOPPERS = {
    "ExplodingTensor": nan_image,
    "LossNotDecreasing": unsteady,
    "WeightUpdateRatio": exploding,
    "UnchangedTensor": frozen_by_mistake,
    "AllZero": zeros,
    "ClassImbalance": imbalance,
    "CheckInputImages": pixels,
    "ShuffledLabels": shuffled_labels,
    "LeakingLabels": stamped,
}
"""Rules that can end a training early, each with a fault for which it does. A stall's process is ended from outside."""


@pytest.mark.parametrize("rule", STOPPERS)
def test_a_rule_that_is_sure_ends_the_training(rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "run", functools.partial(run, stopping=(rule,)))
    assert STOPPERS[rule](tmp_path)["stopped"]["rule"] == rule


def test_the_document_names_the_rules_that_end_a_training() -> None:
    named = DOCUMENT.read_text().split("ends the training early")[1].split("\n\n")[0]
    assert set(re.findall(r"[A-Z]\w+[A-Z]\w+", named)) == {*STOPPERS, "StalledTrainingRule"}


def test_a_rules_parameters_are_those_of_the_execution_input() -> None:
    contract = json.loads((ROOT / "contracts" / "execution_input.schema.json").read_text())
    named = contract["properties"]["debugger"]["properties"]["parameters"]["properties"]
    assert [*named] == [rule.__name__ for rule in RULES]
    kinds = {"integer": int, "number": (int, float), "boolean": bool}
    for rule in RULES:
        taken = {name: one.default for name, one in inspect.signature(rule).parameters.items()}
        told = named[rule.__name__]["properties"]
        assert [*told] == [name for name in taken if name not in ("trial", "clock")]
        for name, one in told.items():
            assert isinstance(taken[name], kinds[one["type"]])
            assert one["description"].endswith(f" Default: {json.dumps(taken[name])}.")


def test_a_rule_asks_what_it_is_told_to(tmp_path: Path) -> None:
    parameters = rule_parameters("CheckInputImages.threshold_samples=2000,DeadRelu.threshold_layer=0.5")
    document = pixels(tmp_path, parameters)
    found = {one["rule"]: one for one in document["findings"]}
    assert found["CheckInputImages"]["parameters"] == {"threshold_mean": 0.2, "threshold_samples": 2000}
    assert found["CheckInputImages"]["step"] >= 62  # 2,000 images, 32 a step
    assert found["CheckInputImages"] in review_tensors(tmp_path / "smdebug", parameters)["findings"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"Overfitting": {}}, "ParameterError: parameters must not contain {'Overfitting'}"),
        ({"Overfit": {"patience_": 1}}, "parameters.Overfit must not contain {'patience_'}"),
        (
            {"LossNotDecreasing": {"num_steps": 1}},
            "parameters.LossNotDecreasing.num_steps must be bigger than or equal",
        ),
        ({"Overfit": {"patience": 1.5}}, "parameters.Overfit.patience must be integer"),
        ({"StalledTrainingRule": {"clock": 1}}, "parameters.StalledTrainingRule must not contain {'clock'}"),
    ],
)
def test_what_no_rule_takes_is_told(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    (finding,) = run(tmp_path, epochs=1, parameters=given)["findings"]
    assert finding["status"] == "Error"
    assert said in finding["message"]


@pytest.mark.parametrize("given", ["Overfit", "Overfit.patience", "Overfit.patience=two", "patience=2", ""])
def test_a_parameter_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=r"is not Rule\.parameter=value"):
        rule_parameters(given)


@pytest.mark.parametrize(
    ("given", "taken"), [("10.0", 10), ("1e3", 1000), ("-2", -2), ("0.5", 0.5), ("true", True)], ids=str
)
def test_a_whole_number_is_an_integer_however_it_is_written(given: str, taken: float) -> None:
    value = rule_parameters(f"Overfit.patience={given}")["Overfit"]["patience"]
    assert (value, type(value)) == (taken, type(taken))


def test_every_rule_has_a_fault() -> None:
    assert set().union(*FAULTS.values()) == {rule.__name__ for rule in RULES}


def documented() -> list[tuple[set[str], set[str]]]:
    """Return what the document says of each fault: what should fire, and what fired."""
    table = DOCUMENT.read_text().split("## Faults by rules")[1].split("\n## ")[0]
    _head, *rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", table, re.MULTILINE)
    return [(set(rules.split(", ")), set(fired.replace("these", rules).split(", "))) for _fault, rules, fired in rows]


def test_the_document_has_these_faults() -> None:
    assert [rules for rules, _fired in documented()] == list(FAULTS.values())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"network": lambda: make_network(nn.Tanh)},
        {"network": lambda: make_network(nn.SiLU)},
        {"learning_rate": 1e-2, "epochs": 20},
        {"head_epochs": 8},
        {"pictures": lambda: Pictures(noise=4), "epochs": 10},
        {"pictures": lambda: Pictures(train=96, valid=40), "epochs": 10, "batch_size": 16},
    ],
    ids=["usual", "tanh", "silu", "long", "after a head", "hard", "few"],
)
def test_a_healthy_training_fires_none(options: dict[str, Any], tmp_path: Path) -> None:
    made = {name: value() if callable(value) else value for name, value in options.items()}
    assert issues(run(tmp_path, **made)) == set()


def test_a_frozen_layer_is_no_fault(tmp_path: Path) -> None:
    network = make_network()
    network[0].requires_grad_(False)
    assert issues(run(tmp_path, network=network)) == set()
