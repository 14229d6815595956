"""A head on frozen features, and what fine-tuning makes of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import train as train_script
from documents import read_document
from engine import TrainingStopped
from options import OptionsError
from prepare_dataset import prepare
from prepare_dataset import read_options as prepare_options
from safetensors.torch import load_file
from small_trainings import issues

Arguments = Callable[..., list[str]]
STOPPED_AT = 2 * 3 + 3 + 2  # two epochs of the head and one of fine-tuning, three steps each, and one step
FIRST, LAST = "conv1.0.weight", "conv5.0.weight"  # of the network's convolutions


@pytest.fixture
def frozen(
    final: dict[str, Any], arguments: Arguments, tmp_path: Path, weights_file: Callable[..., Path]
) -> dict[str, Any]:
    """Options of a final training on frozen features, which are there."""
    features = {
        "mode": "frozen_features",
        "architecture": final["architecture"],
        "weights": "channel",
        "weights_file": weights_file(final["architecture"]),
        "image_size_px": 32,
    }
    folders = {"dataset": final["dataset"], "model_dir": tmp_path / "prepared"}
    prepare(prepare_options(arguments(**folders, checkpoint_dir=tmp_path / "features", **features)))
    return final | features | {"features": tmp_path / "features"}


def train(options: list[str]) -> None:
    train_script.train(train_script.read_options(options))


def test_a_trial_imports_only_what_a_head_needs(frozen: dict[str, Any], arguments: Arguments) -> None:
    """PyTorch's compiler alone, which much of it imports in passing, is two seconds of each trial."""
    heavy = {"torch._dynamo", "torch._inductor", "torchvision", "timm", "smdebug", "pandas"}
    script = (
        "import sys, train; train.train(train.read_options(sys.argv[1:])); "
        f"sys.exit(', '.join({heavy} & set(sys.modules)))"
    )
    options = arguments(**frozen | {"stage": "trial"})

    job = subprocess.run(
        [sys.executable, "-c", script, *options],
        cwd=Path(train_script.__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "final valid_accuracy=" in job.stdout
    assert job.stderr.strip() == ""


def test_a_head_on_frozen_features_becomes_a_whole_model(
    frozen: dict[str, Any], arguments: Arguments, tmp_path: Path, weights_file: Callable[..., Path]
) -> None:
    frozen |= {"epochs": 8}
    train(arguments(**frozen))

    model = read_document(tmp_path / "model/model.json", "model")
    manifest = read_document(tmp_path / "prepared/manifest.json", "manifest")
    assert model["digests"]["pretrained_weights"] == manifest["features"]["weights_sha256"]
    findings = read_document(tmp_path / "output/findings.json", "findings")
    assert findings["findings"][0]["message"] == f"The hooks wrote {findings['tensors_saved']} tensors."
    saved, given = load_file(tmp_path / "model/model.safetensors"), load_file(frozen["weights_file"])
    np.testing.assert_array_equal(saved[LAST], given[LAST])

    other = weights_file(frozen["architecture"], "b.pth", **{"conv1.1.bias": -given["conv1.1.bias"] - 1})
    with pytest.raises(OptionsError, match="the features are of the weights"):
        train(arguments(**frozen | {"weights_file": other}))


@pytest.mark.parametrize("unfreeze", ["last_stage", "all"])
def test_fine_tuning_goes_on_from_the_tuned_head(
    frozen: dict[str, Any], arguments: Arguments, tmp_path: Path, unfreeze: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"unfreeze": unfreeze, "head_epochs": 4, "epochs": 2, "augmentation": "cut", "tuned": "learning_rate"}
    train(arguments(**frozen | asked))

    history = read_document(tmp_path / "output/training_history.json", "training_history")
    assert [epoch["phase"] for epoch in history["epochs"]] == ["head"] * 4 + ["fine_tune"] * 2
    assert (history["decisions"]["frozen_parameters"] == 0) == (unfreeze == "all")
    values = {(value["phase"], value["name"]): value for value in history["values"]}
    assert (values["head", "learning_rate"]["origin"], values["head", "learning_rate"]["value"]) == ("tuned", 0.003)
    assert values["fine_tune", "learning_rate"]["origin"] == "derived"
    assert values["fine_tune", "learning_rate"]["value"] == pytest.approx(0.0003)
    assert "mirrored, " in capsys.readouterr().out
    findings = read_document(tmp_path / "output/findings.json", "findings")
    layers = {layer["name"] for layer in findings["gradient_norms"]["layers"]}
    assert {"hidden.weight", "fc.hidden.weight"} <= layers  # the head alone, and in the network
    steps = [curve["steps"][-1] for curve in findings["curves"] if curve["name"] == "loss"]
    assert max(steps) == findings["steps"] - 1 == 17  # 3 steps in each of the 6 epochs
    saved, given = load_file(tmp_path / "model/model.safetensors"), load_file(frozen["weights_file"])
    fine_tuned = history["best_epoch"] > 4
    assert np.array_equal(saved[LAST], given[LAST]) != fine_tuned
    assert np.array_equal(saved[FIRST], given[FIRST]) != (fine_tuned and unfreeze == "all")


def test_another_try_at_a_lower_rate_lowers_both_phases_and_takes_up_no_checkpoint(
    frozen: dict[str, Any],
    arguments: Arguments,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    frozen |= {"unfreeze": "last_stage", "head_epochs": 2, "epochs": 1, "augmentation": "cut", "debugger": "false"}
    frozen |= {"checkpoint_dir": tmp_path / "checkpoints", "tuned": "learning_rate"}
    with monkeypatch.context() as patched:
        steps = iter(range(7))
        patched.setattr(train_script, "_stop_on_sigterm", lambda: lambda: next(steps) == 6)
        with pytest.raises(TrainingStopped, match="stopped in epoch 3"):
            train(arguments(**frozen))
    train(arguments(**frozen | {"learning_rate_scale": 0.1}))

    assert "is of another training, starting anew" in capsys.readouterr().out
    history = read_document(tmp_path / "output/training_history.json", "training_history")
    rates = [(one["phase"], one["value"]) for one in history["values"] if one["name"] == "learning_rate"]
    assert rates == [("head", pytest.approx(0.0003)), ("fine_tune", pytest.approx(0.00003))]
    assert all(epoch["learning_rate"] < 0.0003 for epoch in history["epochs"])
    hyperparameters = read_document(tmp_path / "model/model.json", "model")["hyperparameters"]
    assert (hyperparameters["learning_rate"], hyperparameters["learning_rate_scale"]) == (0.003, 0.1)


def findings_of(folder: Path) -> dict[str, Any]:
    return read_document(folder / "findings.json", "findings")


def points_of(curve: dict[str, Any]) -> set[tuple[int, float]]:
    return set(zip(curve["steps"], curve["values"], strict=True))


def test_fine_tuning_that_was_interrupted_ends_as_if_it_had_not_been(
    frozen: dict[str, Any], arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen |= {"unfreeze": "last_stage", "head_epochs": 2, "epochs": 3, "augmentation": "cut"}
    train(arguments(**frozen))
    whole, judged = load_file(tmp_path / "model/model.safetensors"), findings_of(tmp_path / "output")
    steps: list[int] = []

    def stops_in_fine_tuning() -> bool:
        steps.append(1)
        return len(steps) == STOPPED_AT

    frozen |= {"checkpoint_dir": tmp_path / "checkpoints", "model_dir": tmp_path / "again"}
    with monkeypatch.context() as patched:
        patched.setattr(train_script, "_stop_on_sigterm", lambda: stops_in_fine_tuning)
        with pytest.raises(TrainingStopped, match="stopped in epoch 4 after 1 of 3 steps"):
            train(arguments(**frozen))
    stopped = findings_of(tmp_path / "checkpoints")
    train(arguments(**frozen))

    resumed = load_file(tmp_path / "again/model.safetensors")
    for name, tensor in whole.items():
        np.testing.assert_array_equal(tensor, resumed[name])
    assert not list((tmp_path / "checkpoints").glob("checkpoint-*.pt"))
    went_on = findings_of(tmp_path / "checkpoints")
    assert (stopped["steps"], stopped["tensors"], stopped["stopped"]) == (10, "smdebug", None)
    assert (went_on["steps"], went_on["tensors"], went_on["stopped"]) == (15, "smdebug-2", None)
    for ours, theirs in zip(went_on["curves"], judged["curves"], strict=True):
        assert ours["steps"][-1] == theirs["steps"][-1] == 14
        assert points_of(ours) <= points_of(theirs)
    assert issues(went_on) <= issues(judged)
    profile = read_document(tmp_path / "checkpoints/profile.json", "profile")
    assert [(part["name"], part["steps"]) for part in profile["parts"]] == [("head", 6), ("fine_tune", 5)]
