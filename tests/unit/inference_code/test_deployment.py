"""The Ray Serve application without Ray: what its builder refuses, and how a replica answers a request."""

import asyncio
import importlib
import json
import shutil
import sys
from dataclasses import astuple

import pytest
from starlette.requests import Request

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

    yield imported
    for name in ("deployment", "inference"):
        sys.modules.pop(name, None)


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


class TestReplica:
    @pytest.fixture
    def replica(self, deployed):
        return deployed().Classifier.func_or_class(threads=1, package_arn="arn:of:a/package")

    def test_an_image_is_answered_with_its_labels(self, replica, artifact, model):
        golden = model.description["golden"][1]
        status, headers, answer = post(replica, (artifact / golden["file"]).read_bytes(), "image/png")
        assert status == 200
        assert headers["content-type"] == "application/json"
        assert answer["predictions"][0]["label"] == golden["label"]
        assert answer["model"]["weights_sha256"] == model.description["weights_sha256"]
        assert answer["model"]["package_arn"] == "arn:of:a/package"

    @pytest.mark.parametrize(
        ("request_", "status", "error"),
        [
            ({"body": b"no image"}, 400, "UnreadableImage"),
            ({"body": b""}, 400, "UnreadableImage"),
            ({"content_type": "text/plain"}, 415, "UnsupportedMediaType"),
            ({"body": b"GIF89a..."}, 415, "UnsupportedMediaType"),
            ({"accept": "text/csv"}, 406, "NotAcceptable"),
            ({"path": "/other"}, 404, "NotFound"),
            ({"method": "GET"}, 405, "MethodNotAllowed"),
        ],
    )
    def test_a_bad_request_gets_a_reason(self, replica, tiny, request_, status, error):
        request = {"body": tiny.encode(tiny.picture()), "content_type": "image/png"} | request_
        answered, headers, answer = post(replica, **request)
        assert answered == status
        assert headers["content-type"] == "application/json"
        assert answer["error"] == error
        assert answer["reason"]


class TestSettings:
    def test_one_replica_uses_all_cores(self, deployed):
        assert astuple(deployed().Settings.read({}, cores=4)) == (1, 4, None)

    def test_replicas_share_the_cores_and_each_has_one_at_least(self, deployed):
        read = deployed().Settings.read
        assert astuple(read({"SERVING_REPLICAS": "2"}, cores=4)) == (2, 2, None)
        assert astuple(read({"SERVING_REPLICAS": "8"}, cores=4)) == (8, 1, None)
        assert astuple(read({"SERVING_REPLICAS": "2", "SERVING_THREADS": "3"}, cores=4)) == (2, 3, None)

    @pytest.mark.parametrize(("value", "package"), [("arn:of:a/package", "arn:of:a/package"), ("", None)])
    def test_the_model_package_is_none_where_it_is_not_told(self, deployed, value, package):
        assert deployed().Settings.read({"MODEL_PACKAGE_ARN": value}, cores=4).package_arn == package

    @pytest.mark.parametrize("name", ["SERVING_REPLICAS", "SERVING_THREADS"])
    @pytest.mark.parametrize("value", ["0", "-1", "two", ""])
    def test_other_values_are_refused_by_name(self, deployed, name, value):
        with pytest.raises(ValueError, match=f"{name} is '{value}'"):
            deployed().Settings.read({name: value}, cores=4)


def post(replica, body=b"", content_type="image/jpeg", accept="application/json", path="/", method="POST"):
    """Send a request to a replica, without HTTP; return status, headers and the JSON of its answer."""
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [(b"content-type", content_type.encode()), (b"accept", accept.encode()), (b"host", b"here")],
    }

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    response = asyncio.run(replica(Request(scope, receive)))
    return response.status_code, response.headers, json.loads(response.body)
