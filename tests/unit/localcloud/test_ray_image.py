"""The Ray launcher: what its server gets, and what it refuses."""

import importlib.util
import os
from pathlib import Path

import pytest

from localcloud.containers.environments import Environment, EnvironmentBuildFailed, Environments
from localcloud.containers.images import LaunchError, ServingContainer
from localcloud.containers.ray import ENTRYPOINT, launch_serving


class Built(Environments):
    """Environments that are there already; each is named after what it was built from."""

    def image(self, name, on_progress):  # noqa: ARG002
        return Environment((Path("/built", name), Path("/built/torch")))

    def with_requirements(self, name, requirements, on_progress, container):  # noqa: ARG002
        if "broken" in requirements.read_text():
            raise EnvironmentBuildFailed("no package is called broken")
        return Environment((Path("/built/overlay"), *self.image(name, on_progress).layers))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model" / "code").mkdir(parents=True)
    return tmp_path / "model"


def container(model: Path, **environment: str) -> ServingContainer:
    return ServingContainer(model, 8080, model.parent, {"PATH": "/bin", **environment}, print)


def test_modules_are_found_in_the_artifact_first(model: Path):
    spec = launch_serving(Built(), container(model, PYTHONPATH="/own", SM_RAYSERVE_APP="module:app"))
    assert spec.env["PYTHONPATH"] == f"{model}:{model}/code:/own"
    assert spec.env["SM_MODEL_DIR"] == str(model)
    assert spec.env["SM_RAYSERVE_APP"] == "module:app"
    assert spec.argv[-2:] == [str(model), "8080"]


def test_requirements_of_the_artifact_are_on_top_of_the_image(model: Path):
    assert launch_serving(Built(), container(model)).argv[0] == "/built/ray/bin/python"
    (model / "code" / "requirements.txt").write_text("something==1.0")
    spec = launch_serving(Built(), container(model))
    assert spec.argv[0] == "/built/overlay/bin/python"
    assert spec.env["PATH"] == "/built/overlay/bin:/built/ray/bin:/built/torch/bin:/bin"


def test_requirements_that_cannot_be_installed_are_the_reason(model: Path):
    (model / "code" / "requirements.txt").write_text("broken")
    with pytest.raises(LaunchError, match="no package is called broken"):
        launch_serving(Built(), container(model))


def test_packages_from_codeartifact_are_refused_by_name(model: Path):
    with pytest.raises(LaunchError, match="CA_REPOSITORY_ARN"):
        launch_serving(Built(), container(model, CA_REPOSITORY_ARN="arn:aws:codeartifact:..."))


class TestRayFolder:
    @pytest.fixture
    def entrypoint(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        spec = importlib.util.spec_from_file_location("entrypoint", ENTRYPOINT)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        monkeypatch.setattr(module, "RAY_FOLDERS", tmp_path)
        return module

    def test_it_is_gone_in_the_end_and_its_sockets_have_short_paths(self, entrypoint):
        entrypoint.RAY_FOLDERS = Path("/tmp")
        with entrypoint._ray_folder() as folder:
            session = folder / "session_2026-11-22_13-35-29_255721_4194304"
            assert len(str(session / "sockets" / "plasma_store")) <= 103  # macOS; Linux has 107
            session.mkdir()
        assert not folder.exists()

    def test_what_a_killed_server_left_is_removed_and_what_a_living_one_has_is_not(self, entrypoint, tmp_path: Path):
        with entrypoint._ray_folder() as living:
            left, young = tmp_path / "localcloud-ray-left", tmp_path / "localcloud-ray-young"
            for folder in (left, young):
                (folder / "logs").mkdir(parents=True)
            for folder in (left, living):
                os.utime(folder, (0, 0))
            with entrypoint._ray_folder():
                assert (living.exists(), left.exists(), young.exists()) == (True, False, True)
