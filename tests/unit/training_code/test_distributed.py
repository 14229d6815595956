"""Two processes under torchrun against one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import train as train_script
from debugger import FolderTrial
from distributed import Processes
from documents import read_document
from options import OptionsError
from prepare_dataset import prepare
from prepare_dataset import read_options as prepare_options

ROOT = Path(__file__).parents[3]
TOLERANCE = 1e-3
"""Of a loss: sums are taken in another order, in bfloat16 where the machine has it."""


def test_uneven_shares_cover_a_batch_and_weigh_as_much_as_they_hold() -> None:
    shares = [Processes(rank, 3) for rank in range(3)]
    parts = [process.share(range(10)) for process in shares]

    assert sorted(item for part in parts for item in part) == list(range(10))
    assert [len(part) for part in parts] == [4, 3, 3]
    assert sum(process.weight(len(part), 10) for process, part in zip(shares, parts, strict=True)) / 3 == pytest.approx(
        1
    )


def test_two_processes_have_the_losses_and_the_findings_of_one(
    dataset: Path, tmp_path: Path, arguments: Callable[..., list[str]]
) -> None:
    """Batches of 9 are uneven shares of 5 and 4, 12 validation images of 6 and 6; the rare class weighs more.

    A network without batch norm.
    """
    for number in range(5):
        next((dataset / "train/red").glob(f"{number}.*")).unlink()
    prepared = tmp_path / "prepared"
    prepare(prepare_options(arguments(dataset=dataset, model_dir=prepared)))

    def trained(name: str, launcher: list[str]) -> Path:
        options: dict[str, Any] = {
            "stage": "final",
            "dataset": dataset,
            "manifest": prepared,
            "inference_code": ROOT / "inference_code",
            "model_dir": tmp_path / name / "model",
            "output_data_dir": tmp_path / name / "output",
            "architecture": "timm:test_vit",
            "image_size_px": 160,
            "hidden_units": 8,
            "batch_size": 9,
            "epochs": 2,
            "learning_rate": 0.001,
            "golden_images": 2,
        }
        script = str(ROOT / "training_code/train.py")
        job = subprocess.run(
            [sys.executable, *launcher, script, *arguments(**options)], capture_output=True, text=True, check=False
        )
        assert job.returncode == 0, job.stderr
        return tmp_path / name / "output"

    two = trained("two", ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"])
    one = trained("one", [])

    histories = [read_document(folder / "training_history.json", "training_history") for folder in (two, one)]
    assert [history["decisions"]["processes"] for history in histories] == [2, 1]
    assert all(history["decisions"]["class_weights"] for history in histories)
    for ours, theirs in zip(*(history["epochs"] for history in histories), strict=True):
        losses = [(epoch["train_loss"], epoch["valid_loss"]) for epoch in (ours, theirs)]
        assert losses[0] == pytest.approx(losses[1], abs=TOLERANCE)

    found, expected = (read_document(folder / "findings.json", "findings") for folder in (two, one))
    for name in ("steps", "tensors_saved", "stopped"):
        assert found[name] == expected[name]
    assert statuses(found) == statuses(expected)
    assert set(statuses(found).values()) <= {"NoIssuesFound", "IssuesFound"}
    for ours, theirs in zip(found["curves"], expected["curves"], strict=True):
        assert (ours["name"], ours["mode"], ours["steps"]) == (theirs["name"], theirs["mode"], theirs["steps"])
        assert ours["values"] == pytest.approx(theirs["values"], abs=TOLERANCE)
    for ours, theirs in zip(*(document["gradient_norms"]["layers"] for document in (found, expected)), strict=True):
        assert ours["norms"] == pytest.approx(theirs["norms"], rel=0.05, abs=TOLERANCE)
    assert FolderTrial(two / "smdebug").valid_images == FolderTrial(one / "smdebug").valid_images == 12

    profiles = [read_document(folder / "profile.json", "profile") for folder in (two, one)]
    for profile in profiles:
        (part,) = profile["parts"]
        assert (part["steps"], part["batch_size"]) == (found["steps"], 9)


def statuses(document: dict[str, Any]) -> dict[str, str]:
    return {finding["rule"]: finding["status"] for finding in document["findings"]}


def test_a_batch_that_leaves_a_process_without_an_image_is_refused(
    final: dict[str, Any], arguments: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_script, "join", lambda: Processes(0, 10))
    monkeypatch.setattr(Processes, "leave", lambda _: None)

    with pytest.raises(OptionsError, match="batch_size is 3, but 10 processes share each batch"):
        train_script.train(train_script.read_options(arguments(**final | {"batch_size": 3})))
