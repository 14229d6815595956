"""The scripts one after the other, as a run has them."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import train as train_script
from artifact import ArtifactError
from documents import read_document
from engine import TrainingDiverged, TrainingStopped
from evaluate import evaluate
from evaluate import read_options as evaluate_options
from options import OptionsError
from safetensors.numpy import load_file, save_file

Arguments = Callable[..., list[str]]
ROOT = Path(__file__).parents[3]
SIGTERM_AFTER_AN_EPOCH = """
import builtins, os, runpy, signal, sys
say = builtins.print

def say_and_stop(*words, **options):
    say(*words, **options)
    if words and str(words[0]).startswith("epoch 1/"):
        os.kill(os.getpid(), signal.SIGTERM)

builtins.print = say_and_stop
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def train(options: list[str]) -> None:
    train_script.train(train_script.read_options(options))


def test_a_trial_prints_the_objective(
    final: dict[str, Any], arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    del final["inference_code"]
    train(arguments(**final | {"stage": "trial", "_tuning_objective_metric": "valid:accuracy"}))

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["trial,", "epoch", "epoch", "epoch", "final"]
    assert lines[-1].startswith("final valid_accuracy=")
    assert not final["model_dir"].exists()


def test_the_final_training_leaves_an_artifact_that_evaluates(
    final: dict[str, Any], arguments: Arguments, tmp_path: Path
) -> None:
    train(arguments(**final, run_id="0123456789ab", checkpoint_dir=tmp_path / "checkpoints", golden_images=4))

    model = read_document(tmp_path / "model/model.json", "model")
    assert (model["run_id"], model["architecture"], model["head"]["path"]) == (
        "0123456789ab",
        final["architecture"],
        "fc",
    )
    assert model["classes"] == ["blue", "green", "red"]
    assert hashlib.sha256((tmp_path / "model/model.safetensors").read_bytes()).hexdigest() == model["weights_sha256"]
    assert load_file(tmp_path / "model/model.safetensors")["fc.output.weight"].shape == (3, 8)
    assert len(model["golden"]) == 4
    assert all((tmp_path / "model" / entry["file"]).is_file() for entry in model["golden"])
    for name in ("config.yaml", "deployment.py", "code/inference.py", "code/requirements.txt"):
        assert (tmp_path / "model" / name).is_file()
    for folder in ("output", "checkpoints"):
        findings = read_document(tmp_path / folder / "findings.json", "findings")
        assert {f["status"] for f in findings["findings"]} == {"NoIssuesFound"}
        assert findings["steps"] == 9
        history = read_document(tmp_path / folder / "training_history.json", "training_history")
        assert [epoch["epoch"] for epoch in history["epochs"]] == [1, 2, 3]
    assert not list((tmp_path / "checkpoints").glob("*.pt"))

    table = Path(__file__).parents[3] / "contracts/examples/variants.json"
    shutil.copy(table, tmp_path / "model")  # as OptimizeModel does
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:  # as SageMaker packs it
        tar.add(tmp_path / "model", ".")
    scored = {"dataset": final["dataset"], "manifest": final["manifest"], "model_dir": tmp_path / "scored"}
    evaluate(evaluate_options(arguments(model=tmp_path / "model.tar.gz", batch_size=5, **scored)))

    evaluation = read_document(tmp_path / "scored/evaluation.json", "evaluation")
    assert (evaluation["images"], evaluation["weights_sha256"]) == (12, model["weights_sha256"])
    assert np.trace(evaluation["confusion_matrix"]) == round(evaluation["accuracy"] * 12)
    assert evaluation["variants"] == json.loads(table.read_text())
    assert {sample["label"] for sample in evaluation["samples"]} == {"blue", "green", "red"}
    assert [sample["drawn"] for sample in evaluation["samples"]] == [False] * 10 + [True] * 2
    for sample in evaluation["samples"]:
        content = (tmp_path / "scored" / sample["file"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == sample["sha256"]
    with (tmp_path / "scored/predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    assert sum(row["label"] == row["predicted"] for row in rows) == np.trace(evaluation["confusion_matrix"])


def test_googlenet_serves_without_its_auxiliary_classifiers(
    final: dict[str, Any], arguments: Arguments, tmp_path: Path
) -> None:
    train(arguments(**final | {"architecture": "googlenet", "epochs": 1, "debugger": "false"}))

    model = read_document(tmp_path / "model/model.json", "model")
    assert len(model["golden"]) == 8
    assert read_document(tmp_path / "output/findings.json", "findings")["findings"] == []


def test_a_diverging_training_fails_with_a_finding(final: dict[str, Any], arguments: Arguments, tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged):
        train(arguments(**final | {"learning_rate": 1000, "weight_decay": 100, "epochs": 30}))

    findings = read_document(tmp_path / "output/findings.json", "findings")["findings"]
    exploding = [finding for finding in findings if finding["rule"] == "ExplodingTensor"]
    assert [finding["status"] for finding in exploding] == ["IssuesFound"]
    assert "lower" in exploding[0]["message"]
    assert not (tmp_path / "model/model.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "frozen_features", "weights": "default"}, "stage final in mode frozen_features needs features"),
        ({"inference_code": None}, "needs inference_code"),
        ({"learning_rate": 0}, "learning_rate: 0 is not above 0 and at most 1000"),
        ({"eps": "small"}, "eps: 'small' is no float"),
        ({"debugger": "yes"}, "'yes' is neither true nor false"),
        ({"data_digest": "0" * 64}, "data_digest is 0000"),
    ],
)
def test_options_that_do_not_fit_are_named(
    final: dict[str, Any], arguments: Arguments, options: dict[str, Any], message: str
) -> None:
    given = {name: value for name, value in (final | options).items() if value is not None}

    with pytest.raises(OptionsError, match=message):
        train(arguments(**given))


def test_serving_code_that_answers_otherwise_is_refused(
    final: dict[str, Any], arguments: Arguments, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(final["inference_code"], wrong)
    code = (wrong / "engines.py").read_text()
    (wrong / "engines.py").write_text(code.replace(").float().numpy()", ").float().numpy() + 0.1"))

    with pytest.raises(ArtifactError, match="its network or preprocessing is not the training's"):
        train(
            arguments(
                **final
                | {
                    "inference_code": wrong,
                }
            )
        )
    assert len(read_document(tmp_path / "output/training_history.json", "training_history")["epochs"]) == 3


def test_a_failing_job_leaves_its_reason(dataset: Path, tmp_path: Path) -> None:
    shutil.rmtree(dataset / "train")
    environment = {**os.environ, "SM_OUTPUT_DIR": str(tmp_path / "output"), "SM_MODEL_DIR": str(tmp_path / "model")}
    script = ROOT / "training_code" / "prepare_dataset.py"

    job = subprocess.run(
        [sys.executable, script, "--dataset", dataset], env=environment, capture_output=True, text=True, check=False
    )

    assert job.returncode == 1
    reason = (tmp_path / "output/failure").read_text()
    assert reason.startswith("DatasetError: ")
    assert "has no folder train/" in reason
    assert job.stderr.strip() == reason


def test_sigterm_saves_and_a_second_start_goes_on(final: dict[str, Any], arguments: Arguments, tmp_path: Path) -> None:
    final |= {"checkpoint_dir": tmp_path / "checkpoints", "epochs": 6}
    command = [str(ROOT / "training_code/train.py"), *arguments(**final)]
    job = subprocess.run([sys.executable, "-c", SIGTERM_AFTER_AN_EPOCH, *command], capture_output=True, text=True)

    assert job.returncode == 128 + signal.SIGTERM, job.stderr
    assert "epoch 1/6" in job.stdout
    assert "stopped in epoch" in job.stdout
    assert list((tmp_path / "checkpoints").glob("checkpoint-*.pt"))
    findings = read_document(tmp_path / "checkpoints/findings.json", "findings")
    assert (findings["stopped"], findings["tensors"]) == (None, "smdebug")
    again = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)
    assert "resumed at epoch" in again.stdout
    assert "epoch 1/6" not in again.stdout
    assert "epoch 6/6" in again.stdout
    findings = read_document(tmp_path / "checkpoints/findings.json", "findings")
    assert (findings["steps"], findings["tensors"]) == (6 * 3, "smdebug-2")


def test_a_checkpoint_of_other_pretrained_weights_is_not_taken_up(
    final: dict[str, Any],
    arguments: Arguments,
    tmp_path: Path,
    weights_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = weights_file(final["architecture"])
    final |= {"weights": "channel", "weights_file": file, "debugger": "false", "profiler": "false"}
    final |= {"checkpoint_dir": tmp_path / "checkpoints", "epochs": 1}
    with monkeypatch.context() as patched:
        patched.setattr(train_script, "_stop_on_sigterm", lambda: lambda: True)
        with pytest.raises(TrainingStopped):
            train(arguments(**final))
    tensors = load_file(file)
    save_file({**tensors, "conv1.0.weight": tensors["conv1.0.weight"] / 2}, file)
    train(arguments(**final))
    assert "is of another training, starting anew" in capsys.readouterr().out


def test_a_network_of_timms_serves_with_timm(final: dict[str, Any], arguments: Arguments, tmp_path: Path) -> None:
    train(arguments(**final | {"architecture": "timm:test_efficientnet", "epochs": 1, "debugger": "false"}))

    model = read_document(tmp_path / "model/model.json", "model")
    assert (model["architecture"], model["head"]["path"]) == ("timm:test_efficientnet", "classifier")
    requirements = (tmp_path / "model/code/requirements.txt").read_text()
    assert "\ntimm==" in requirements
    assert not list((tmp_path / "model/code").glob("requirements-*"))


def test_a_network_of_torchvisions_serves_without_timm(
    final: dict[str, Any], arguments: Arguments, tmp_path: Path
) -> None:
    train(arguments(**final | {"epochs": 1, "debugger": "false"}))

    assert "timm" not in (tmp_path / "model/code/requirements.txt").read_text()
    assert not list((tmp_path / "model/code").glob("requirements-*"))
