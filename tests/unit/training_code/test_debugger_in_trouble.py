"""Hooks and rules that fail, or have nothing to look at: it is told, and no training stops for it."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import debugger
import debugging
import hooks
import pytest
import torch
from engine import TrainingDoomed
from rules.loss import LossNotDecreasing
from small_trainings import Pictures, configure_hook, issues, make_network, run, statuses, told, train


def test_hooks_that_fail_in_a_step_are_a_finding_and_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debugger, "make_tensor_proto", lambda *_: 1 / 0)
    network = make_network()
    before = network[0].weight.clone()
    torch.set_num_threads(2)
    document = run(tmp_path, network=network)
    assert torch.get_num_threads() == 2
    assert not torch.equal(before, network[0].weight)
    assert document["findings"][0]["status"] == "Error"
    assert "the hooks failed at step 0: ZeroDivisionError" in document["findings"][0]["message"]


def test_hooks_that_cannot_be_set_up_are_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(hooks, "Hooks", refuse)
    (finding,) = run(tmp_path, epochs=1)["findings"]
    assert (finding["rule"], finding["status"]) == ("Hooks", "Error")
    assert finding["message"] == "the hooks could not be set up: OSError: no space left"


def test_hooks_that_wrote_nothing_are_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure_hook(tmp_path, monkeypatch, {"HookParameters": {"start_step": "100"}})
    (finding, *_) = run(tmp_path / "output", epochs=1)["findings"]
    assert (finding["status"], finding["message"]) == ("Error", "the hooks wrote no tensor")


@pytest.mark.parametrize(
    ("ended", "said"),
    [(OSError("no such image"), ": OSError: no such image"), (None, ".")],
)
def test_a_training_that_took_no_step_is_told_of_once(tmp_path: Path, ended: Exception | None, said: str) -> None:
    debugging.start_debugging(True, [tmp_path], 4).write_findings(ended)
    (finding,) = json.loads((tmp_path / "findings.json").read_text())["findings"]
    assert (finding["status"], finding["message"]) == ("NoIssuesFound", f"The training took no step{said}")


def test_a_stall_before_the_first_step_is_an_issue(tmp_path: Path) -> None:
    watched = debugging.start_debugging(True, [tmp_path], 4, parameters={"StalledTrainingRule": {"threshold": 0.0}})
    assert watched._review.stalled.watch()
    watched.write_findings(OSError("no such image"))
    assert issues(json.loads((tmp_path / "findings.json").read_text())) == {"StalledTrainingRule"}


def test_trouble_in_hooks_is_told_while_the_training_stalls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told_of = threading.Event()
    monkeypatch.setattr(debugging, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(debugging, "write_findings", lambda document, _: (found.append(document), told_of.set()))
    monkeypatch.setattr(hooks.Hooks, "trouble", property(lambda _: "no space left", lambda *_: None), raising=False)
    found: list[dict[str, Any]] = []
    debugging.start_debugging(True, [tmp_path], 4, parameters={"StalledTrainingRule": {"threshold": 0.0}})
    assert told_of.wait(20)
    assert (statuses(found[0])["Hooks"], told(found[0], "Hooks")["message"]) == ("Error", "no space left")


def test_a_rule_that_fails_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LossNotDecreasing, "verdict", lambda _: 1 / 0)
    document = run(tmp_path, epochs=1)
    assert statuses(document)["LossNotDecreasing"] == "Error"
    assert statuses(document)["VanishingGradient"] == "NoIssuesFound"


def test_a_debugger_that_is_off_says_so(tmp_path: Path) -> None:
    off = debugging.start_debugging(False, [tmp_path], 4)
    train(off, make_network(), Pictures(), epochs=1)
    off.write_findings(TrainingDoomed("ExplodingTensor", 3, "no more"))
    written = json.loads((tmp_path / "findings.json").read_text())
    assert (written["findings"], written["stopped"]["step"]) == ([], 3)
