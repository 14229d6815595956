from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import features
import numpy as np
import pytest
from batches import normalise
from data import DatasetError, decode
from documents import read_document
from features import compute_features, read_features
from network import open_network
from options import OptionsError
from pictures import squares
from PIL import Image
from prepare_dataset import prepare, read_options
from source import read_image

Arguments = Callable[..., list[str]]
AS_SEEN = {"resize_px": 16, "image_size_px": 16, "fit": "crop", "mean": [0.5] * 3}


def test_the_manifest_keeps_its_contract(dataset: Path, tmp_path: Path, arguments: Arguments) -> None:
    (dataset / "train/.DS_Store").write_bytes(b"x")

    prepare(read_options(arguments(dataset=dataset, model_dir=tmp_path / "out", dataset_uri="s3://bucket/squares/")))

    manifest = read_document(tmp_path / "out/manifest.json", "manifest")
    assert manifest["dataset_uri"] == "s3://bucket/squares/"
    assert manifest["counts"]["train"] == {"blue": 8, "green": 8, "red": 8}
    assert len(manifest["images"]) == 48
    assert manifest["ignored"] == ["train/.DS_Store"]
    assert manifest["features"] is None
    assert manifest["imbalance"] == {"largest": "blue", "smallest": "blue", "ratio": 1.0}
    assert manifest["splits_taken"] == {}
    assert [sample["label"] for sample in manifest["samples"]] == ["blue"] * 3 + ["green"] * 3 + ["red"] * 3
    for sample in manifest["samples"]:
        with Image.open(tmp_path / "out" / sample["thumbnail"]) as thumbnail:
            assert thumbnail.size == (40, 32)


def test_an_archive_gives_the_same_manifest_as_its_folder(dataset: Path, tmp_path: Path, arguments: Arguments) -> None:
    archive = tmp_path / "dogImages.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for path in dataset.rglob("*.*"):
            opened.write(path, f"dogImages/{path.relative_to(dataset)}")
    manifests = []
    for number, given in enumerate((dataset, archive)):
        prepare(read_options(arguments(dataset=given, model_dir=tmp_path / str(number))))
        manifests.append(read_document(tmp_path / str(number) / "manifest.json", "manifest"))

    one, two = manifests
    assert two["counts"] == one["counts"]
    assert [f"dogImages/{entry['path']}" for entry in one["images"]] == [entry["path"] for entry in two["images"]]
    seen = [squares(given, m["images"], AS_SEEN) for given, m in zip((dataset, archive), manifests, strict=True)]
    for index in range(48):
        np.testing.assert_array_equal(*[one[index] for one in seen])


def test_splits_that_are_not_given_are_taken_from_the_training_images(
    dataset: Path, tmp_path: Path, arguments: Arguments
) -> None:
    shutil.rmtree(dataset / "valid")

    prepare(read_options(arguments(dataset=dataset, model_dir=tmp_path / "out", valid_share=0.25)))

    manifest = read_document(tmp_path / "out/manifest.json", "manifest")
    assert manifest["splits_taken"] == {"valid": 0.25}
    assert manifest["counts"]["valid"] == {"blue": 2, "green": 2, "red": 2}
    assert manifest["counts"]["train"] == {"blue": 6, "green": 6, "red": 6}


@pytest.mark.parametrize(("policy", "left"), [("drop", 6), ("report", 8)])
def test_images_that_stand_in_two_splits_are_told_and_dropped(
    dataset: Path, tmp_path: Path, arguments: Arguments, policy: str, left: int
) -> None:
    for suffix in ("jpg", "png"):
        shutil.copy(
            dataset / f"test/red/{'0' if suffix == 'jpg' else '1'}.{suffix}", dataset / f"train/red/again.{suffix}"
        )
        (dataset / f"train/red/{'6' if suffix == 'jpg' else '7'}.{suffix}").unlink()

    prepare(read_options(arguments(dataset=dataset, model_dir=tmp_path / "out", near_duplicates=policy)))

    manifest = read_document(tmp_path / "out/manifest.json", "manifest")
    assert [(pair["path"], pair["of"], pair["dropped"]) for pair in manifest["near_duplicates"]] == [
        ("train/red/again.jpg", "test/red/0.jpg", policy == "drop"),
        ("train/red/again.png", "test/red/1.png", policy == "drop"),
    ]
    assert manifest["counts"]["train"]["red"] == left


def test_a_training_image_that_breaks_off_is_used_if_asked_for(
    dataset: Path, tmp_path: Path, arguments: Arguments
) -> None:
    for split in ("train", "valid"):
        whole = (dataset / f"{split}/red/0.jpg").read_bytes()
        (dataset / f"{split}/red/0.jpg").write_bytes(whole[:-100])
    options = {"dataset": dataset, "model_dir": tmp_path / "out", "max_unreadable": 1}

    with pytest.raises(DatasetError, match=r"2 images cannot be read, .* train/red/0\.jpg: image file"):
        prepare(read_options(arguments(**options)))
    prepare(read_options(arguments(**options, truncated="train")))

    manifest = read_document(tmp_path / "out/manifest.json", "manifest")
    assert [entry["path"] for entry in manifest["unreadable"]] == ["valid/red/0.jpg"]
    (broken,) = [entry for entry in manifest["images"] if entry["truncated"]]
    assert broken["path"] == "train/red/0.jpg"
    assert squares(dataset, [broken], AS_SEEN)[0].shape == (16, 16, 3)


def test_folders_come_from_sagemaker(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SM_CHANNEL_DATASET", str(dataset))
    monkeypatch.setenv("SM_MODEL_DIR", str(tmp_path / "model"))

    prepare(read_options(["--seed", "3", "--_tuning_objective_metric", "valid:accuracy"]))

    assert (tmp_path / "model/manifest.json").is_file()


def test_more_unreadable_images_than_allowed_are_listed(dataset: Path, tmp_path: Path, arguments: Arguments) -> None:
    for index in range(6):
        for suffix in ("jpg", "png"):
            (dataset / f"train/red/broken{index:02}.{suffix}").write_bytes(b"no image")
    options = arguments(dataset=dataset, model_dir=tmp_path / "out", max_unreadable=11)

    with pytest.raises(DatasetError) as raised:
        prepare(read_options(options))

    message = str(raised.value)
    assert message.startswith("12 images cannot be read, max_unreadable is 11: train/red/broken00.jpg: neither JPEG")
    assert message.count("broken") == 10
    assert not (tmp_path / "out").exists()


def test_unreadable_images_within_the_limit_are_left_out(dataset: Path, tmp_path: Path, arguments: Arguments) -> None:
    (dataset / "train/red/0.jpg").write_bytes(b"no image")

    prepare(read_options(arguments(dataset=dataset, model_dir=tmp_path, max_unreadable=1)))

    manifest = read_document(tmp_path / "manifest.json", "manifest")
    assert manifest["counts"]["train"]["red"] == 7
    assert [entry["path"] for entry in manifest["unreadable"]] == ["train/red/0.jpg"]


def test_a_class_of_unreadable_images_only_is_refused(dataset: Path, tmp_path: Path, arguments: Arguments) -> None:
    for file in (dataset / "test/red").iterdir():
        file.write_bytes(b"no image")

    with pytest.raises(DatasetError, match="test/ has no image left of red"):
        prepare(read_options(arguments(dataset=dataset, model_dir=tmp_path, max_unreadable=9)))


def test_features_are_computed_once(
    dataset: Path, tmp_path: Path, arguments: Arguments, weights_file: Callable[..., Path]
) -> None:
    options = {
        "dataset": dataset,
        "model_dir": tmp_path / "out",
        "checkpoint_dir": tmp_path / "features",
        "mode": "frozen_features",
        "weights": "channel",
        "weights_file": weights_file("shufflenet_v2_x0_5"),
        "architecture": "shufflenet_v2_x0_5",
        "image_size_px": 32,
    }

    def run(**changes: object) -> dict[str, object]:
        prepare(read_options(arguments(**(options | changes))))
        manifest = read_document(tmp_path / "out/manifest.json", "manifest")
        values, labels = read_features(tmp_path / "features", manifest, "train")
        assert values.shape == (24, 1024)
        assert labels.tolist() == [0] * 8 + [1] * 8 + [2] * 8
        return manifest["features"]

    first = run()
    assert (first["reused"], first["dimension"]) == (False, 1024)
    assert run() == first | {"reused": True}
    (tmp_path / "features/valid.safetensors").write_bytes(b"half of it")
    assert run() == first
    assert run(image_size_px=40)["digest"] != first["digest"]
    (dataset / "test/red/0.jpg").unlink()
    assert run()["digest"] != first["digest"]


@pytest.mark.parametrize("step", [read_image, decode, squares, normalise, open_network, compute_features])
def test_features_are_computed_again_when_a_step_to_them_changes(step: Callable[..., object]) -> None:
    assert f"{step.__module__}.py" in features.CODE


def test_features_of_other_images_are_not_read(
    dataset: Path, tmp_path: Path, arguments: Arguments, weights_file: Callable[..., Path]
) -> None:
    file = weights_file("shufflenet_v2_x0_5")
    common = {"dataset": dataset, "model_dir": tmp_path, "weights": "channel", "weights_file": file}
    common |= {"architecture": "shufflenet_v2_x0_5", "image_size_px": 32, "mode": "frozen_features"}
    prepare(read_options(arguments(checkpoint_dir=tmp_path / "one", **common)))
    earlier = json.loads((tmp_path / "manifest.json").read_text())
    (dataset / "valid/red/0.jpg").unlink()
    prepare(read_options(arguments(checkpoint_dir=tmp_path / "two", **common)))

    with pytest.raises(DatasetError, match="holds features"):
        read_features(tmp_path / "two", earlier, "train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "frozen_features"}, "needs pretrained weights"),
        ({"mode": "frozen_features", "weights": "default"}, "needs a folder for the features"),
        ({"weights": "channel"}, "there is no channel weights"),
        ({"weights": "channel", "weights_file": "."}, "holds .*; expected is one file"),
        ({"image_size_px": 7}, "image_size_px: 7 is not at least 8 and at most 1024"),
        ({"architektur": "resnet18"}, "unrecognized arguments: --architektur"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    dataset: Path, tmp_path: Path, arguments: Arguments, options: dict[str, object], message: str
) -> None:
    with pytest.raises(OptionsError, match=message):
        read_options(arguments(dataset=dataset, model_dir=tmp_path, **options))
