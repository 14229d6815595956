"""The wheels that an artifact carries to an endpoint without a network."""

from __future__ import annotations

from pathlib import Path

import pytest
from artifact import ArtifactError, _carry_wheels

REQUIREMENTS = "# what the image lacks\nfastjsonschema==2.22.3\nsome-package==1.0\n"
WHEELS = ("fastjsonschema-2.22.3-py3-none-any.whl", "some_package-1.0-cp313-cp313-any.whl")


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "requirements.txt").write_text(REQUIREMENTS)
    return tmp_path / "code"


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    (tmp_path / "wheels").mkdir()
    for name in (*WHEELS, "onnxruntime-1.31.1-cp313-cp313-any.whl"):
        (tmp_path / "wheels" / name).touch()
    return tmp_path / "wheels"


def test_what_the_endpoint_installs_is_carried_and_nothing_else(code: Path, wheels: Path) -> None:
    _carry_wheels(code, wheels)
    assert sorted(wheel.name for wheel in (code / "wheels").iterdir()) == sorted(WHEELS)


def test_a_wheel_that_was_not_gathered_is_named(code: Path, wheels: Path) -> None:
    (wheels / WHEELS[1]).unlink()
    with pytest.raises(ArtifactError, match=r"none of some-package==1\.0: gather them again"):
        _carry_wheels(code, wheels)
