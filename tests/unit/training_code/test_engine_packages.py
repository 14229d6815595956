"""What an artifact's variant needs beyond this image is there while it answers, and gone afterwards."""

import importlib
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from engine_packages import EnginePackagesError, engine_packages


@pytest.fixture
def artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An artifact's folder; pip finds nothing but an engine of version 1.0."""
    with zipfile.ZipFile(tmp_path / "swift_engine-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("swift_engine.py", "VERSION = 1")
        wheel.writestr("swift_engine-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: swift-engine\nVersion: 1.0")
        wheel.writestr("swift_engine-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true")
        wheel.writestr("swift_engine-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    (tmp_path / "artifact" / "code").mkdir(parents=True)
    return tmp_path / "artifact"


def require(artifact: Path, *pins: str) -> None:
    (artifact / "code" / "requirements.txt").write_text("# what the endpoint installs\n" + "\n".join(pins) + "\n")


def test_a_package_that_is_missing_is_there_for_as_long_as_the_artifact_answers(artifact: Path) -> None:
    require(artifact, "swift-engine==1.0", f"numpy=={np.__version__}")
    with engine_packages(artifact):
        engine = importlib.import_module("swift_engine")
        folder = Path(engine.__file__ or "").parent
        assert engine.VERSION == 1
        assert not (folder / "numpy").exists()
    del sys.modules["swift_engine"]
    assert not folder.exists()
    assert str(folder) not in sys.path


def test_an_artifact_that_needs_nothing_changes_nothing(artifact: Path) -> None:
    before = list(sys.path)
    with engine_packages(artifact):
        pass
    assert sys.path == before


def test_a_package_that_cannot_be_had_is_named(artifact: Path) -> None:
    require(artifact, "swift-engine==2.0")
    with (
        pytest.raises(EnginePackagesError, match=r"swift-engine==2\.0 could not be installed"),
        engine_packages(artifact),
    ):
        pass
