"""The evaluation of what a training left, and of a champion beside it."""

from __future__ import annotations

import csv
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import train as train_script
from data import DatasetError
from documents import read_document
from evaluate import evaluate, read_options

Arguments = Callable[..., list[str]]


@pytest.fixture
def scored(final: dict[str, Any], arguments: Arguments, tmp_path: Path) -> dict[str, Any]:
    """Options of an evaluation of a model that was trained for it, in a second."""
    train_script.train(train_script.read_options(arguments(**final | {"debugger": "false"})))
    return {
        "dataset": final["dataset"],
        "manifest": final["manifest"],
        "model": final["model_dir"],
        "model_dir": tmp_path / "scored",
    }


def test_an_image_changed_since_the_manifest_is_not_scored(scored: dict[str, Any], arguments: Arguments) -> None:
    test: Path = scored["dataset"] / "test"
    (test / "red/0.jpg").write_bytes((test / "red/2.jpg").read_bytes())

    with pytest.raises(DatasetError, match=r"test/red/0\.jpg has changed since PrepareDataset"):
        evaluate(read_options(arguments(**scored)))


def test_the_champion_answers_the_images_that_it_does_not_know_by_its_own_code(
    scored: dict[str, Any], arguments: Arguments, tmp_path: Path
) -> None:
    manifest = json.loads((scored["manifest"] / "manifest.json").read_text())
    known = next(entry for entry in manifest["images"] if entry["split"] == "test")
    known["split"] = "train"
    (tmp_path / "known").mkdir()
    (tmp_path / "known/manifest.json").write_text(json.dumps(manifest))
    turned = ("code/engines.py", "return self._network(images)", "return -self._network(images)")
    against = {"champion": champion_of(scored["model"], *turned), "champion_manifest": tmp_path / "known"}

    evaluate(read_options(arguments(**scored, **against)))

    compared = read_document(tmp_path / "scored/evaluation.json", "evaluation")["champion"]
    assert (compared["images"], compared["left_out"], compared["same_classes"]) == (11, 1, True)
    with (tmp_path / "scored/predictions.csv").open() as file:
        right = [row["label"] == row["predicted"] for row in csv.DictReader(file) if row["sha256"] != known["sha256"]]
    # Of three classes, what is most probable to one is least probable to the other: they are never right together.
    assert compared["wins"] == sum(right) > 0
    assert compared["losses"] <= len(right) - sum(right)


def test_a_champion_of_other_classes_is_not_scored(
    scored: dict[str, Any], arguments: Arguments, tmp_path: Path
) -> None:
    renamed = champion_of(scored["model"], "model.json", '"blue"', '"azure"')

    evaluate(read_options(arguments(**scored, champion=renamed, champion_manifest=scored["manifest"])))

    compared = read_document(tmp_path / "scored/evaluation.json", "evaluation")["champion"]
    assert (compared["same_classes"], compared["wins"], compared["losses"]) == (False, 0, 0)


@pytest.mark.parametrize(("needed", "by"), [("()", "bfloat16"), ("('no_such_instruction',)", "float32")])
def test_float32_is_scored_beside_the_variant_and_where_that_does_not_run(
    scored: dict[str, Any], arguments: Arguments, tmp_path: Path, needed: str, by: str
) -> None:
    model = read_document(scored["model"] / "model.json", "model")
    serving = json.loads((Path(__file__).parents[3] / "contracts/examples/serving.json").read_text())
    serving |= {"variant": "bfloat16", "engine": "torch", "precision": "bfloat16", "file": None, "sha256": None}
    serving["weights_sha256"] = model["weights_sha256"]
    (scored["model"] / "serving.json").write_text(json.dumps(serving))
    engines = scored["model"] / "code/engines.py"
    engines.write_text(engines.read_text() + f"\nNEEDS['bfloat16'] = {needed}\n")

    evaluate(read_options(arguments(**scored)))

    evaluation = read_document(tmp_path / "scored/evaluation.json", "evaluation")
    assert evaluation["variant"] == by
    for sample in evaluation["samples"]:
        if by == "float32":
            assert "float32" not in sample
        else:
            assert sample["float32"]["probability"] == pytest.approx(sample["probability"], abs=0.05)
            assert sample["float32"]["probability"] != sample["probability"]


def champion_of(model: Path, name: str, old: str, new: str) -> Path:
    """Return an archive of the model with something else in one of its files."""
    champion = model.with_name("champion")
    shutil.copytree(model, champion)
    content = (champion / name).read_text()
    assert old in content
    (champion / name).write_text(content.replace(old, new))
    with tarfile.open(archive := model.with_name("champion.tar.gz"), "w:gz") as tar:
        tar.add(champion, ".")
    return archive
