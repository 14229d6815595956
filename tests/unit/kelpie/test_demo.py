"""The demo's data: every digit once, each class in every split, nothing that is held back is trained on."""

import json
import os
import subprocess
import warnings
from pathlib import Path

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from sklearn.datasets import load_digits

from kelpie.dataset import list_dataset
from kelpie.demo import HELD_BACK_SHOWN, classify, show_answers, write_digits


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


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Have `python -m kelpie` print what it is given, and exit with what it is given."""

    def say(printed, exit_code):
        (tmp_path / "kelpie").mkdir()
        (tmp_path / "kelpie" / "__init__.py").touch()
        (tmp_path / "kelpie" / "__main__.py").write_text(f"print({printed!r}, end='')\nraise SystemExit({exit_code})\n")
        monkeypatch.chdir(tmp_path)

    return say


UNKNOWN = {"file": "a.png", "status": "unknown", "label": None, "probability": 0.3, "reason": None}
FAILED = {"file": "b.png", "status": "failed", "label": None, "probability": None, "reason": {"message": "no result"}}


def test_an_image_without_a_label_is_an_answer_like_the_others(command):
    command(json.dumps([UNKNOWN]), exit_code=1)
    assert classify(os.environ, [Path("a.png")]) == [UNKNOWN]


def test_a_command_that_gave_no_answers_has_failed(command):
    command("", exit_code=1)
    with pytest.raises(subprocess.CalledProcessError):
        classify(os.environ, [Path("a.png")])


def test_what_got_no_label_is_shown_with_its_status(capsys):
    show_answers([UNKNOWN, FAILED], {Path("a.png"): "digit-7", Path("b.png"): "digit-8"})
    _space, _head, unknown, failed, total = capsys.readouterr().out.splitlines()
    assert unknown.split() == ["a.png", "unknown", "0.3000", "wrong:", "it", "is", "digit-7"]
    assert failed.split() == ["b.png", "failed", "-", "wrong:", "it", "is", "digit-8:", "no", "result"]
    assert total.startswith("0 of 2")
