"""The Ray Serve application without Ray: what its builder refuses, and how it uses the cores."""

import importlib
import json
import shutil
import sys

import pytest

# Ray Serve 2.57 on pydantic 2.12 and newer, while it is imported
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`:DeprecationWarning")


@pytest.fixture
def deployed(artifact, tmp_path, monkeypatch):
    """A function that imports a copy of the artifact's deployment.py, as PYTHONPATH has it in the image."""

    def imported(change=None):
        folder = shutil.copytree(artifact, tmp_path / "model")
        description = json.loads((folder / "model.json").read_text())
        if change:
            change(description)
        (folder / "model.json").write_text(json.dumps(description))
        monkeypatch.syspath_prepend(folder / "code")
        monkeypatch.syspath_prepend(folder)
        return importlib.import_module("deployment")

    names = ("deployment", "inference", "artifacts", "decoding", "engines", "networks")
    others = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    yield imported
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(others)


def test_an_artifact_that_gives_its_golden_answers_is_an_application(deployed, monkeypatch):
    monkeypatch.setenv("SERVING_REPLICAS", "3")
    application = deployed().build({})
    assert application._bound_deployment.num_replicas == 3


def test_one_that_does_not_is_none(deployed):
    def spoil(description):
        description["golden"][0]["logits"][1] += 0.1

    deployment = deployed(spoil)
    with pytest.raises(Exception, match=r"golden/0\.jpg is 0\.1 off") as caught:
        deployment.build({})
    assert type(caught.value).__name__ == "ArtifactError"


class TestSettings:
    def test_one_replica_uses_all_cores(self, deployed):
        settings = deployed().Settings.read({}, cores=4)
        assert (settings.replicas, settings.cores, settings.threads) == (1, 4, None)

    def test_many_cores_are_shared_by_replicas(self, deployed):
        read = deployed().Settings.read
        assert [read({}, cores=cores).replicas for cores in (1, 8, 9, 32)] == [1, 1, 2, 4]
        assert read({}, cores=32).cores == 8
        assert read({"SERVING_REPLICAS": "8", "SERVING_THREADS": "3"}, cores=4).cores == 1
        assert read({"SERVING_THREADS": "3"}, cores=4).threads == 3

    @pytest.mark.parametrize(
        ("url", "backend"), [("http://here:8001", ("here", 8001)), ("http://here:8001/", ("here", 8001)), ("", None)]
    )
    def test_the_backend_is_where_the_adapter_looks_for_it(self, deployed, url, backend):
        assert deployed().Settings.read({"RAYSERVE_BACKEND_URL": url}, cores=2).backend == backend

    @pytest.mark.parametrize(("value", "package"), [("arn:of:a/package", "arn:of:a/package"), ("", None)])
    def test_the_model_package_is_none_where_it_is_not_told(self, deployed, value, package):
        assert deployed().Settings.read({"MODEL_PACKAGE_ARN": value}, cores=4).package_arn == package

    @pytest.mark.parametrize("name", ["SERVING_REPLICAS", "SERVING_THREADS"])
    @pytest.mark.parametrize("value", ["0", "-1", "two", ""])
    def test_other_values_are_refused_by_name(self, deployed, name, value):
        with pytest.raises(ValueError, match=f"{name} is '{value}'"):
            deployed().Settings.read({name: value}, cores=4)
