from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from averaging import MovingAverage
from batches import FeatureBatches, cut_batches
from checkpoint import Checkpoints
from data import DatasetError
from engine import Surroundings, TrainingDiverged, TrainingStopped, fit, schedule
from head import build_head
from history import Training, final_line
from optimizer import AdamW, Group
from recipe import Phase

CPU = torch.device("cpu")


def make_batches(train_images: int = 96, scale: float = 1.0) -> FeatureBatches:
    generator = torch.Generator().manual_seed(0)

    def split(number: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(number) % 3
        noise = torch.randn(number, 6, generator=generator)
        return (noise + 2 * torch.nn.functional.one_hot(labels, 6)) * scale, labels

    return FeatureBatches(split(train_images), split(48), CPU)


def train(
    epochs: int = 6,
    checkpoints: Checkpoints | None = None,
    stopping: Callable[[], bool] = lambda: False,
    learning_rate: float = 0.02,
    batches: FeatureBatches | None = None,
    averaging: float = 0.9,
    patience: int = 0,
    criterion: torch.nn.CrossEntropyLoss | None = None,
    dropout: float = 0.2,
) -> tuple[torch.nn.Module, Training]:
    torch.manual_seed(5)
    network = build_head(6, 8, 3, dropout)
    share = 0.25 if averaging else 0.0
    phase = Phase(
        "head", learning_rate, 1e-8, 1e-2, 16, epochs, averaging=averaging, start_share=share, patience=patience
    )
    groups = [Group(list(network.parameters()), phase.learning_rate, phase.weight_decay)]
    around = Surroundings(checkpoints, stopping=stopping)
    criterion = criterion or torch.nn.CrossEntropyLoss()
    training = fit(network, criterion, batches or make_batches(), phase, groups, 5, around)
    return network, training


def figures(training: Training) -> list[tuple[float, ...]]:
    return [(e.train_loss, e.train_accuracy, e.valid_loss, e.valid_accuracy) for e in training.history]


def test_it_learns_and_keeps_the_best_epoch() -> None:
    network, training = train()

    best = training.best
    assert best is not None
    assert best.valid_accuracy == max(epoch.valid_accuracy for epoch in training.history) > 0.7
    assert torch.equal(network.state_dict()["output.bias"], training.best_state["output.bias"])


def test_training_and_validation_losses_are_comparable() -> None:
    split = torch.randn(48, 6, generator=torch.Generator().manual_seed(0)), torch.arange(48) % 3
    same = FeatureBatches(split, split, CPU)
    criterion = torch.nn.CrossEntropyLoss(torch.tensor([1.0, 3.0, 9.0]), label_smoothing=0.5)
    (epoch,) = train(1, None, learning_rate=1e-12, batches=same, criterion=criterion, dropout=0)[1].history
    assert epoch.train_loss == pytest.approx(epoch.valid_loss, rel=1e-5)


def test_the_same_seed_gives_the_same_training() -> None:
    assert figures(train()[1]) == figures(train()[1])


@pytest.mark.parametrize("stop_at", [1, 6, 7, 20, 35])
def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, stop_at: int) -> None:
    checkpoints = Checkpoints(tmp_path, {"seed": 5})
    seen: list[int] = []

    def stopping() -> bool:
        seen.append(1)
        return len(seen) == stop_at

    with pytest.raises(TrainingStopped):
        train(checkpoints=checkpoints, stopping=stopping)
    resumed_network, resumed = train(checkpoints=checkpoints)
    network, whole = train()

    assert figures(resumed) == figures(whole)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, resumed_network.state_dict()[name])


def test_a_checkpoint_of_another_training_is_not_taken_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Checkpoints(tmp_path, {"seed": 4}).save({"network": {}})

    assert Checkpoints(tmp_path, {"seed": 5}).load() is None
    assert "is of another training, starting anew" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04half", b"nonsense"])
def test_a_broken_newest_checkpoint_falls_back_to_the_one_before_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    checkpoints = Checkpoints(tmp_path, {"seed": 5})
    for number in range(3):
        checkpoints.save({"number": number})
    first, newest = sorted(tmp_path.iterdir())
    newest.write_bytes(content)

    assert checkpoints.load() == {"number": 1}
    assert "trying the one before it" in capsys.readouterr().out
    first.write_bytes(content)
    assert checkpoints.load() is None
    checkpoints.save({"number": 3})
    assert checkpoints.load() == {"number": 3}


def test_a_process_without_validation_images_adds_nothing_to_the_mean() -> None:
    assert list(make_batches().valid([])) == []


def test_early_stopping_ends_what_does_not_improve() -> None:
    training = train(epochs=30, patience=3)[1]

    assert training.stopped_early
    assert training.best is not None
    assert len(training.history) == training.best.epoch + 3


def test_the_optimizer_is_torchs_adamw() -> None:
    ours, theirs = build_head(6, 8, 3, 0), build_head(6, 8, 3, 0)
    theirs.load_state_dict(ours.state_dict())
    optimizer = AdamW([Group(list(ours.parameters()), 0.01, 0.1)], 1e-8)
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.01, eps=1e-8, weight_decay=0.1, fused=True)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        inputs = torch.randn(7, 6, generator=generator)
        for network in (ours, theirs):
            network.zero_grad()
            network(inputs).square().sum().backward()
        optimizer.step(1.0)
        reference.step()

    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_the_average_is_drawn_back_to_where_it_began() -> None:
    network = torch.nn.Linear(2, 2)
    torch.nn.init.zeros_(network.weight)
    average = MovingAverage(network, decay=0.5, start_share=0.25)
    torch.nn.init.ones_(network.weight)
    for _ in range(50):
        average.update()

    with average.in_place():
        torch.testing.assert_close(network.weight.detach(), torch.full((2, 2), 0.75))
    assert torch.equal(network.weight, torch.ones(2, 2))


def test_a_loss_that_is_no_number_ends_the_training() -> None:
    with pytest.raises(TrainingDiverged, match=r"the loss became (nan|inf) at step \d+ .*learning_rate 0.02: lower it"):
        train(batches=make_batches(scale=1e38))


def test_a_batch_larger_than_the_training_split_names_both() -> None:
    with pytest.raises(DatasetError, match="batch_size is 16, but the training split has 12 images"):
        train(batches=make_batches(train_images=12))


def test_every_image_is_in_at_most_one_batch() -> None:
    batches = cut_batches(10, 3, torch.Generator())

    assert [len(batch) for batch in batches] == [3, 3, 3]
    assert len({index for batch in batches for index in batch}) == 9


@pytest.mark.parametrize("steps", [1, 2, 3, 10, 1000])
def test_the_schedule_rises_to_one_and_falls_to_nearly_nothing(steps: int) -> None:
    shares = [schedule(step, steps) for step in range(steps)]
    peak = shares.index(max(shares))

    assert max(shares) == 1
    assert min(shares) > 0
    assert shares[:peak] == sorted(shares[:peak])
    assert shares[peak:] == sorted(shares[peak:], reverse=True)
    assert steps < 10 or shares[-1] < 0.1


def test_the_last_value_printed_is_the_best_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    _, training = train()
    assert training.best is not None
    printed = capsys.readouterr().out
    values = re.findall(r"valid_accuracy=([0-9.]+)", printed + final_line(training.best))

    assert len(values) == 7
    assert float(values[-1]) == pytest.approx(max(map(float, values)))
    assert re.fullmatch(
        r"epoch 1/6 train_loss=\d\.\d{4} train_accuracy=\d\.\d{4} valid_loss=\d\.\d{4} valid_accuracy=\d\.\d{4} "
        r"learning_rate=\d\.\de[+-]\d\d images_per_second=\d+ waiting=0\.0% phase=head phase_seconds_left=\d+",
        printed.splitlines()[0],
    )
