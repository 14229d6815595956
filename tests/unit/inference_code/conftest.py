"""Fixtures of the tests that need torch: they run in the training or the serving environment."""

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # more of them wait for each other on the small networks of these tests


@pytest.fixture(scope="session")
def tiny():
    """The module tiny_artifact, which is a script as well."""
    spec = importlib.util.spec_from_file_location("tiny_artifact", Path(__file__).parent / "tiny_artifact.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def artifact(tiny, tmp_path_factory):
    """An artifact that no test changes."""
    folder = tmp_path_factory.mktemp("artifact")
    tiny.make_artifact(folder)
    return folder


@pytest.fixture(scope="session")
def inference(artifact, tiny):
    """The artifact's own code/inference.py."""
    return tiny.load_inference(artifact / "code")


@pytest.fixture(scope="session")
def decoding(inference):
    """The module decoding that inference.py imports."""
    return sys.modules[inference.preprocess.__module__]


@pytest.fixture(scope="session")
def networks(inference):
    """The module networks, which float32 imports, from where inference.py is."""
    assert inference
    return importlib.import_module("networks")


@pytest.fixture(scope="session")
def model(inference, artifact):
    return inference.model_fn(artifact)
