"""Wheels for jobs without a network: what is gathered for which image, and where it goes."""

import pytest

from kelpie import wheels

BUCKET = "bucket"


def test_each_image_gets_the_wheels_of_its_python(s3, monkeypatch):
    asked = {}

    def gather(files, python, folder):
        folder.mkdir()
        (folder / f"for-{python}.whl").write_bytes(b"")
        asked[folder.name] = {file.name for file in files}

    monkeypatch.setattr(wheels, "gather", gather)
    wheels.main([f"s3://{BUCKET}/wheels/", "--serving-python", "3.11"])
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET)["Contents"]]
    assert keys == ["wheels/serving/for-3.11.whl", "wheels/training/for-3.12.whl"]
    assert asked["training"] == {"requirements.txt", "optimize-requirements.txt"}
    assert asked["serving"] == {"requirements.txt", "requirements-timm.txt", "optimize-requirements.txt"}


@pytest.mark.parametrize("destination", ["kelpie-bucket", "s3://kelpie-bucket", "s3://kelpie-bucket/other/"])
def test_another_place_is_refused(destination, capsys):
    with pytest.raises(SystemExit):
        wheels.main([destination])
    assert "s3://BUCKET/wheels/" in capsys.readouterr().err


def test_what_is_gathered_is_pinned():
    for files in wheels.REQUIREMENTS.values():
        for file in files:
            lines = [line for line in file.read_text().splitlines() if line and not line.startswith("#")]
            assert lines
            assert all("==" in line for line in lines), file
