"""The demo's data: every digit once, each class in every split, nothing that is held back is trained on."""

import warnings
from pathlib import Path

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sklearn.datasets import load_digits

from kelpie.dataset import list_dataset
from kelpie.demo import HELD_BACK_SHOWN, show_answers, write_digits


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    return folder, write_digits(folder / "digits", folder / "held-back")


def test_every_digit_is_written_once(written):
    folder, held_back = written
    names = [path.name for path in folder.rglob("*.png")]
    assert len(names) == len(set(names)) == len(load_digits().target)
    assert len(held_back) >= HELD_BACK_SHOWN >= 10


def test_the_folder_is_a_data_set_and_the_splits_are_alike(written):
    folder, _held_back = written
    list_dataset(folder / "digits")
    for split, share in (("train", 0.7), ("valid", 0.14), ("test", 0.14)):
        for label in range(10):
            count = len(list((folder / "digits" / split / f"digit-{label}").iterdir()))
            assert count == pytest.approx(share * 180, abs=5)


def test_labels_of_held_back_images_are_true(written):
    _folder, held_back = written
    target = load_digits().target
    assert all(label == f"digit-{target[int(path.stem)]}" for path, label in held_back.items())


def test_it_is_the_same_each_time(written, tmp_path):
    folder, held_back = written
    again = write_digits(tmp_path / "digits", tmp_path / "held-back")
    assert [path.name for path in again] == [path.name for path in held_back]
    first = sorted(p.relative_to(folder / "digits") for p in (folder / "digits").rglob("*.png"))
    assert first == sorted(p.relative_to(tmp_path / "digits") for p in (tmp_path / "digits").rglob("*.png"))


def test_an_answer_below_the_models_confidence_is_shown_as_unknown(capsys):
    show_answers([{"file": "a.png", "label": None, "probability": 0.3}], {Path("a.png"): "digit-7"})
    assert capsys.readouterr().out.splitlines()[2].split() == [
        "a.png",
        "unknown",
        "0.3000",
        "wrong:",
        "it",
        "is",
        "digit-7",
    ]
