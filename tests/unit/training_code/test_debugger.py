from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import debugger
import debugging
import numpy as np
import pytest
import rules
import torch
from debugger import Hooks, create_trial, modes
from documents import read_document
from torch import nn


def make_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


def run(
    hooks: Any,
    network: nn.Module,
    criterion: nn.Module,
    steps: int = 24,
    learning_rate: float = 0.05,
    labels: torch.Tensor | None = None,
) -> None:
    generator = torch.Generator().manual_seed(1)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=learning_rate)
    inputs = torch.randn(30, 4, generator=generator)
    targets = (inputs @ torch.randn(4, 3, generator=generator)).argmax(1) if labels is None else labels
    for step in range(steps):
        network.train()
        hooks.mode(training=True)
        optimizer.zero_grad()
        loss = criterion(network(inputs), targets)
        loss.backward()
        optimizer.step()
        if step % 8 == 7:
            network.eval()
            hooks.mode(training=False)
            with torch.no_grad():
                criterion(network(inputs), targets)


def statuses(document: dict[str, Any]) -> dict[str, str]:
    return {finding["rule"]: finding["status"] for finding in document["findings"]}


def write_findings(hooks: Any, folder: Path) -> dict[str, Any]:
    hooks.write_findings([folder])
    return read_document(folder / "findings.json", "findings")


def test_a_reader_finds_losses_weights_and_gradients(tmp_path: Path) -> None:
    network, criterion = make_network(), nn.CrossEntropyLoss()
    hooks = Hooks(network, criterion, tmp_path, save_interval_steps=8, configuration=None)
    run(hooks, network, criterion)
    assert hooks.close() is None

    trial = create_trial(str(tmp_path / "smdebug"))

    assert hooks.steps == 24
    assert trial.steps(mode=modes.TRAIN) == list(range(0, 24, 2))
    loss = trial.tensor("CrossEntropyLoss_output_0")
    assert len(loss.steps(mode=modes.TRAIN)) == 12
    assert len(loss.steps(mode=modes.EVAL)) == 3
    values = [float(loss.value(step, mode=modes.TRAIN)) for step in loss.steps(mode=modes.TRAIN)]
    assert values[-1] < values[0]
    assert set(trial.tensor_names(collection="gradients")) == {
        f"gradient/Sequential_{name}" for name in ("0.weight", "0.bias", "2.weight", "2.bias")
    }
    weight = trial.tensor("Sequential_0.weight")
    assert weight.steps(mode=modes.TRAIN) == [0, 8, 16]
    expected = make_network()[0].weight
    assert weight.reduction_value(0, "max", mode=modes.TRAIN) == pytest.approx(expected.max().item())
    assert weight.reduction_value(0, "mean", mode=modes.TRAIN, abs=True) == pytest.approx(expected.abs().mean().item())


def test_a_healthy_training_has_no_issues(tmp_path: Path) -> None:
    network, criterion = make_network(), nn.CrossEntropyLoss()
    hooks = debugging.start_debugging(True, network, criterion, tmp_path, 4)
    run(hooks, network, criterion)

    document = write_findings(hooks, tmp_path)

    assert set(statuses(document).values()) == {"NoIssuesFound"}
    assert list(statuses(document)) == ["Hooks", "ExplodingTensor", "LossNotDecreasing", "VanishingGradient"]
    assert (document["tensors"], document["steps"], document["tensors_saved"]) == ("smdebug", 24, 9)


def test_frozen_parameters_are_no_trouble(tmp_path: Path) -> None:
    network, criterion = make_network(), nn.CrossEntropyLoss()
    network[0].requires_grad_(False)
    hooks = debugging.start_debugging(True, network, criterion, tmp_path, 4)
    run(hooks, network, criterion)

    assert set(statuses(write_findings(hooks, tmp_path)).values()) == {"NoIssuesFound"}


def test_a_learning_rate_that_explodes_is_found(tmp_path: Path) -> None:
    network, criterion = make_network(), nn.CrossEntropyLoss()
    hooks = debugging.start_debugging(True, network, criterion, tmp_path, 4)
    run(hooks, network, criterion, learning_rate=1e30)

    finding = next(f for f in write_findings(hooks, tmp_path)["findings"] if f["rule"] == "ExplodingTensor")

    assert finding["status"] == "IssuesFound"
    assert finding["step"] is not None
    assert finding["values"] == {"value": None}


def test_a_loss_that_stays_is_found(tmp_path: Path) -> None:
    network, criterion = make_network(), nn.CrossEntropyLoss()
    hooks = debugging.start_debugging(True, network, criterion, tmp_path, 4)
    run(hooks, network, criterion, learning_rate=1e-9)

    finding = next(f for f in write_findings(hooks, tmp_path)["findings"] if f["rule"] == "LossNotDecreasing")

    assert (finding["status"], finding["step"]) == ("IssuesFound", 23)
    assert "nothing was learned" in finding["message"]


def test_gradients_that_vanish_are_found(tmp_path: Path) -> None:
    network, criterion = make_network(), nn.CrossEntropyLoss()
    nn.init.constant_(network[0].bias, -100)  # every ReLU is dead
    hooks = debugging.start_debugging(True, network, criterion, tmp_path, 4)
    run(hooks, network, criterion)

    finding = next(f for f in write_findings(hooks, tmp_path)["findings"] if f["rule"] == "VanishingGradient")

    assert finding["status"] == "IssuesFound"
    assert finding["values"]["largest_mean"] == 0


def test_hooks_that_fail_in_a_step_are_a_finding_and_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, criterion = make_network(), nn.CrossEntropyLoss()
    hooks = debugging.start_debugging(True, network, criterion, tmp_path, 4)
    monkeypatch.setattr("smdebug.core.writer.make_tensor_proto", lambda **_: 1 / 0)
    before = network[0].weight.clone()
    run(hooks, network, criterion)

    document = write_findings(hooks, tmp_path)

    assert not torch.equal(before, network[0].weight)
    assert document["findings"][0]["status"] == "Error"
    assert "the hooks failed at step 0: ZeroDivisionError" in document["findings"][0]["message"]


def test_hooks_that_cannot_be_set_up_are_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(debugger, "Hooks", refuse)
    hooks = debugging.start_debugging(True, make_network(), nn.CrossEntropyLoss(), tmp_path, 4)
    hooks.mode(training=True)

    assert write_findings(hooks, tmp_path)["findings"] == [
        {
            "rule": "Hooks",
            "status": "Error",
            "step": None,
            "tensor": None,
            "values": {"tensors": 0},
            "message": "the hooks could not be set up: OSError: no space left",
        }
    ]


def test_hooks_that_wrote_nothing_are_a_finding(tmp_path: Path) -> None:
    hooks = debugging.start_debugging(True, make_network(), nn.CrossEntropyLoss(), tmp_path, 4)

    document = write_findings(hooks, tmp_path)

    assert (document["findings"][0]["rule"], document["findings"][0]["status"]) == ("Hooks", "Error")
    assert document["findings"][0]["message"] == "the hooks wrote no tensor"


def test_a_rule_that_fails_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules.LossNotDecreasing, "conclude", lambda _: 1 / 0)
    network, criterion = make_network(), nn.CrossEntropyLoss()
    hooks = debugging.start_debugging(True, network, criterion, tmp_path, 4)
    run(hooks, network, criterion)

    document = write_findings(hooks, tmp_path)

    assert statuses(document)["LossNotDecreasing"] == "Error"
    assert statuses(document)["VanishingGradient"] == "NoIssuesFound"


def test_sagemakers_own_configuration_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = {
        "LocalPath": str(tmp_path / "tensors"),
        "HookParameters": {"save_interval": "6"},
        "CollectionConfigurations": [{"CollectionName": "losses"}, {"CollectionName": "gradients"}],
    }
    (tmp_path / "config").mkdir()
    (tmp_path / "config/debughookconfig.json").write_text(json.dumps(configuration))
    monkeypatch.setenv("SM_INPUT_CONFIG_DIR", str(tmp_path / "config"))
    network, criterion = make_network(), nn.CrossEntropyLoss()
    hooks = debugging.start_debugging(True, network, criterion, tmp_path / "output", 4)
    run(hooks, network, criterion)

    document = write_findings(hooks, tmp_path)

    assert document["tensors"] == str(tmp_path / "tensors")
    assert set(statuses(document).values()) == {"NoIssuesFound"}
    assert create_trial(str(tmp_path / "tensors")).tensor("CrossEntropyLoss_output_0").steps(mode=modes.TRAIN) == [
        0,
        6,
        12,
        18,
    ]


def test_a_second_run_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    for folder in ("smdebug", "smdebug-2"):
        network, criterion = make_network(), nn.CrossEntropyLoss()
        hooks = debugging.start_debugging(True, network, criterion, tmp_path, 4)
        run(hooks, network, criterion)
        assert write_findings(hooks, tmp_path)["tensors"] == folder


def test_arrays_are_written_without_tostring() -> None:
    debugger._repair_writer()
    array = np.arange(3, dtype=np.float32)

    assert debugger.smdebug.core.writer.make_tensor_proto(nparray_data=array, tag="t").tensor_content == array.tobytes()
