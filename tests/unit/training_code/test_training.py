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
from data import DatasetError
from documents import read_document
from engine import TrainingDiverged
from evaluate import evaluate
from evaluate import read_options as evaluate_options
from options import OptionsError
from prepare_dataset import prepare
from prepare_dataset import read_options as prepare_options
from safetensors.torch import load_file

Arguments = Callable[..., list[str]]
ROOT = Path(__file__).parents[3]
SERVING_CODE = ROOT / "inference_code"
SMALL = "shufflenet_v2_x0_5"


@pytest.fixture
def final(dataset: Path, prepared: Path, tmp_path: Path) -> dict[str, Any]:
    """Options of a final training that takes a second."""
    return {
        "stage": "final",
        "dataset": dataset,
        "manifest": prepared,
        "inference_code": SERVING_CODE,
        "model_dir": tmp_path / "model",
        "output_data_dir": tmp_path / "output",
        "architecture": SMALL,
        "image_size_px": 32,
        "hidden_units": 8,
        "batch_size": 8,
        "epochs": 3,
        "learning_rate": 0.003,
        "debugger_save_interval_steps": 4,
    }


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
    assert (model["run_id"], model["architecture"], model["head"]["path"]) == ("0123456789ab", SMALL, "fc")
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


def test_a_head_on_frozen_features_becomes_a_whole_model(
    final: dict[str, Any], arguments: Arguments, tmp_path: Path, weights_file: Callable[..., Path]
) -> None:
    frozen = {
        "mode": "frozen_features",
        "architecture": SMALL,
        "weights": "channel",
        "weights_file": weights_file(SMALL),
        "image_size_px": 32,
    }
    folders = {"dataset": final["dataset"], "model_dir": tmp_path / "prepared"}
    prepare(prepare_options(arguments(**folders, checkpoint_dir=tmp_path / "features", **frozen)))
    final |= {"features": tmp_path / "features", "epochs": 8, **frozen}
    dataset = final.pop("dataset")
    train(arguments(**final | {"stage": "trial"}))
    train(arguments(**final, dataset=dataset))

    model = read_document(tmp_path / "model/model.json", "model")
    manifest = read_document(tmp_path / "prepared/manifest.json", "manifest")
    assert model["digests"]["pretrained_weights"] == manifest["features"]["weights_sha256"]
    findings = read_document(tmp_path / "output/findings.json", "findings")
    assert findings["findings"][0]["message"] == f"The hooks wrote {findings['tensors_saved']} tensors."
    saved, given = load_file(tmp_path / "model/model.safetensors"), load_file(frozen["weights_file"])
    np.testing.assert_array_equal(saved["conv5.0.weight"], given["conv5.0.weight"])

    with pytest.raises(OptionsError, match="the features are of the weights"):
        train(
            arguments(
                **final
                | {"weights_file": weights_file(SMALL, "b.pth", **{"conv1.1.bias": -given["conv1.1.bias"] - 1})},
                dataset=dataset,
            )
        )


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
    shutil.copytree(SERVING_CODE, wrong)
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


def test_an_image_changed_since_the_manifest_is_not_scored(
    final: dict[str, Any], arguments: Arguments, tmp_path: Path
) -> None:
    train(arguments(**final | {"epochs": 1, "debugger": "false"}))
    dataset: Path = final["dataset"]
    (dataset / "test/red/0.jpg").write_bytes((dataset / "test/red/2.jpg").read_bytes())
    scored = {"dataset": dataset, "manifest": final["manifest"], "model_dir": tmp_path / "scored"}

    with pytest.raises(DatasetError, match=r"test/red/0\.jpg has changed since PrepareDataset"):
        evaluate(evaluate_options(arguments(model=tmp_path / "model", **scored)))


def test_the_champion_answers_the_images_that_it_does_not_know_by_its_own_code(
    final: dict[str, Any], arguments: Arguments, tmp_path: Path
) -> None:
    train(arguments(**final | {"debugger": "false"}))
    champion = tmp_path / "champion"
    shutil.copytree(tmp_path / "model", champion)
    code = (champion / "code/engines.py").read_text()
    upside_down = code.replace("return self._network(images)", "return -self._network(images)")
    assert upside_down != code
    (champion / "code/engines.py").write_text(upside_down)
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        tar.add(champion, ".")
    manifest = json.loads((final["manifest"] / "manifest.json").read_text())
    known = next(entry for entry in manifest["images"] if entry["split"] == "test")
    known["split"] = "train"
    (tmp_path / "known").mkdir()
    (tmp_path / "known/manifest.json").write_text(json.dumps(manifest))
    scored = {"dataset": final["dataset"], "manifest": final["manifest"], "model_dir": tmp_path / "scored"}
    against = {"champion": tmp_path / "model.tar.gz", "champion_manifest": tmp_path / "known"}

    evaluate(evaluate_options(arguments(model=tmp_path / "model", **scored, **against)))

    compared = read_document(tmp_path / "scored/evaluation.json", "evaluation")["champion"]
    assert (compared["images"], compared["left_out"], compared["same_classes"]) == (11, 1, True)
    with (tmp_path / "scored/predictions.csv").open() as file:
        right = [row["label"] == row["predicted"] for row in csv.DictReader(file) if row["sha256"] != known["sha256"]]
    # Of three classes, what is most probable to one is least probable to the other: they are never right together.
    assert compared["wins"] == sum(right) > 0
    assert compared["losses"] <= len(right) - sum(right)


def test_a_champion_of_other_classes_is_not_scored(final: dict[str, Any], arguments: Arguments, tmp_path: Path) -> None:
    train(arguments(**final | {"epochs": 1, "debugger": "false"}))
    champion = tmp_path / "champion"
    shutil.copytree(tmp_path / "model", champion)
    description = json.loads((champion / "model.json").read_text())
    description["classes"] = ["azure", "green", "red"]
    (champion / "model.json").write_text(json.dumps(description))
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        tar.add(champion, ".")
    scored = {"dataset": final["dataset"], "manifest": final["manifest"], "model_dir": tmp_path / "scored"}
    against = {"champion": tmp_path / "model.tar.gz", "champion_manifest": final["manifest"]}

    evaluate(evaluate_options(arguments(model=tmp_path / "model", **scored, **against)))

    compared = read_document(tmp_path / "scored/evaluation.json", "evaluation")["champion"]
    assert (compared["same_classes"], compared["wins"], compared["losses"]) == (False, 0, 0)


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
    final |= {"checkpoint_dir": tmp_path / "checkpoints", "epochs": 6, "debugger": "false"}
    command = [sys.executable, "-u", str(ROOT / "training_code/train.py"), *arguments(**final)]
    job = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert job.stdout is not None
    for line in job.stdout:
        if line.startswith("epoch 1/"):
            job.send_signal(signal.SIGTERM)
            break
    rest = job.stdout.read()
    job.stdout.close()

    assert job.wait(timeout=60) == 128 + signal.SIGTERM
    assert "stopped in epoch" in rest
    assert list((tmp_path / "checkpoints").glob("checkpoint-*.pt"))
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "resumed at epoch" in again.stdout
    assert "epoch 1/6" not in again.stdout
    assert "epoch 6/6" in again.stdout


@pytest.mark.parametrize("unfreeze", ["last_stage", "all"])
def test_fine_tuning_goes_on_from_the_tuned_head(
    final: dict[str, Any],
    arguments: Arguments,
    tmp_path: Path,
    weights_file: Callable[..., Path],
    unfreeze: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = load_file(weights_file(SMALL))
    frozen = {
        "mode": "frozen_features",
        "architecture": SMALL,
        "weights": "channel",
        "weights_file": weights_file(SMALL),
        "image_size_px": 32,
    }
    folders = {"dataset": final["dataset"], "model_dir": tmp_path / "prepared"}
    prepare(prepare_options(arguments(**folders, checkpoint_dir=tmp_path / "features", **frozen)))
    asked = {
        "unfreeze": unfreeze,
        "head_epochs": 4,
        "epochs": 2,
        "augmentation": "strong",
        "tuned": "learning_rate,eps",
    }
    train(arguments(**final | {"features": tmp_path / "features"} | frozen | asked))

    history = read_document(tmp_path / "output/training_history.json", "training_history")
    assert [epoch["phase"] for epoch in history["epochs"]] == ["head"] * 4 + ["fine_tune"] * 2
    assert (history["decisions"]["frozen_parameters"] == 0) == (unfreeze == "all")
    values = {(value["phase"], value["name"]): value for value in history["values"]}
    assert (values["head", "learning_rate"]["origin"], values["head", "learning_rate"]["value"]) == ("tuned", 0.003)
    assert values["fine_tune", "learning_rate"]["origin"] == "derived"
    assert values["fine_tune", "learning_rate"]["value"] == pytest.approx(0.0003)
    assert "mirrored, " in capsys.readouterr().out
    saved = load_file(tmp_path / "model/model.safetensors")
    if history["best_epoch"] > 4:
        assert not np.array_equal(saved["conv5.0.weight"], given["conv5.0.weight"])
    assert np.array_equal(saved["conv1.0.weight"], given["conv1.0.weight"]) == (
        unfreeze == "last_stage" or history["best_epoch"] <= 4
    )


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
