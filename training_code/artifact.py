"""The model artifact: what SageMaker packs into model.tar.gz, and the code in it that evaluation and serving run.

model.json and model.safetensors, golden/ (images whose answers model.json knows), config.yaml and deployment.py for Ray
Serve, and code/ with the serving code, as contracts/model.schema.json and the serving image want it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import sys
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from documents import write_document
from job import JobError
from safetensors.torch import save_file
from source import read_image

BUNDLE = "inference_code.tar.gz"
AT_THE_ROOT = ("config.yaml", "deployment.py")  # where the serving image looks for them
WEIGHTS_FILE = "model.safetensors"
GOLDEN_TOLERANCE = 0.01  # of a logit: other machines and versions of PyTorch round differently
CONTENT_TYPES = {"JPEG": ("image/jpeg", ".jpg"), "PNG": ("image/png", ".png")}


class ArtifactError(JobError):
    """The artifact cannot be written or read, or does not answer as the network that was trained."""


def write_artifact(
    folder: Path,
    network: torch.nn.Module,
    description: Mapping[str, Any],
    inference_code: Path,
    dataset: Path,
    golden: Sequence[Mapping[str, Any]],
    serving_wheels: Path | None = None,
) -> dict[str, Any]:
    """Write the artifact to `folder`; return its model.json.

    description: model.json without what is known only here, weights and golden images. golden: entries of the manifest,
    of which the artifact's own code gives the answers. serving_wheels: what the endpoint installs from if it has no
    network. Raises ArtifactError.
    """
    _unpack_inference_code(inference_code, folder)
    _complete_requirements(folder / "code", description["architecture"])
    if serving_wheels:
        _carry_wheels(folder / "code", serving_wheels)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, folder / WEIGHTS_FILE)
    document = {
        **description,
        "weights_file": WEIGHTS_FILE,
        "weights_sha256": hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest(),
        "golden": [],
        "golden_tolerance": GOLDEN_TOLERANCE,
    }
    write_document(folder / "model.json", document, "model")
    with inference_module(folder) as inference:
        model = inference.model_fn(folder)
        for number, entry in enumerate(golden):
            content_type, suffix = CONTENT_TYPES[entry["format"]]
            file = f"golden/{number}{suffix}"
            content = read_image(dataset, entry)
            (folder / "golden").mkdir(exist_ok=True)
            (folder / file).write_bytes(content)
            logits: np.ndarray = inference.predict_logits(model, [content])[0]
            document["golden"].append(
                {
                    "file": file,
                    "content_type": content_type,
                    "label": document["classes"][int(logits.argmax())],
                    "logits": [float(value) for value in logits],
                }
            )
    write_document(folder / "model.json", document, "model")
    return document


def check_golden(document: Mapping[str, Any], expected: np.ndarray) -> None:
    """Raise ArtifactError unless the artifact answered the golden images as the network that was trained, (N, C)."""
    if not document["golden"]:
        return
    answers = np.array([entry["logits"] for entry in document["golden"]])
    difference = float(np.abs(answers - expected).max())
    if not difference <= document["golden_tolerance"]:
        raise ArtifactError(
            f"the serving code answers the golden images up to {difference:.3g} off the trained network, at most "
            f"{document['golden_tolerance']} is allowed: its network or preprocessing is not the training's"
        )


def unpack_artifact(archive: Path, folder: Path) -> None:
    """Unpack model.tar.gz, given itself or by its folder, into `folder`; nothing in it can land elsewhere."""
    if archive.is_dir():
        archive = archive / "model.tar.gz"
    _unpack(archive, folder)
    if not (folder / "model.json").is_file():
        raise ArtifactError(f"{archive} holds no model.json: it is no artifact of train.py's final stage")


@contextmanager
def inference_module(folder: Path) -> Iterator[ModuleType]:
    """Give the artifact's code/inference.py as a module; none of its modules stays behind in sys.modules.

    Its modules come before ours of the same name, as they do where it serves. Raises ArtifactError if it has none.
    """
    code = folder / "code"
    path = code / "inference.py"
    if not path.is_file():
        raise ArtifactError(f"the artifact has no {path.relative_to(folder)}")
    names = {entry.stem for entry in code.iterdir() if entry.suffix == ".py" or entry.is_dir()}
    ours = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in names}
    sys.path.insert(0, str(code))
    specification = importlib.util.spec_from_file_location("inference", path)
    if specification is None or specification.loader is None:
        raise ArtifactError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(specification)
    sys.modules["inference"] = module
    try:
        specification.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(code))
        for name in [name for name in sys.modules if name.partition(".")[0] in names]:
            del sys.modules[name]
        sys.modules.update(ours)


def _unpack_inference_code(source: Path, folder: Path) -> None:
    """Lay out the serving code, given as its folder, the bundle, or the channel's folder that holds the bundle."""
    code = folder / "code"
    if (source / BUNDLE).is_file():
        source = source / BUNDLE
    if source.is_dir():
        shutil.copytree(source, code, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        _unpack(source, code)
    for name in AT_THE_ROOT:
        if not (code / name).is_file():
            raise ArtifactError(f"the serving code {source} has no {name}")
        (code / name).replace(folder / name)


def _complete_requirements(code: Path, architecture: str) -> None:
    """Have the endpoint install what this network needs besides, and nothing that others need."""
    library, named, _ = architecture.partition(":")
    for path in sorted(code.glob("requirements-*.txt")):
        if named and path.stem == f"requirements-{library}":
            with (code / "requirements.txt").open("a") as requirements:
                requirements.write(path.read_text())
        path.unlink()


def _carry_wheels(code: Path, wheels: Path) -> None:
    """Put the wheels of what requirements.txt pins into code/wheels. Raises ArtifactError if one is missing."""
    (code / "wheels").mkdir()
    for line in (code / "requirements.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            found = list(wheels.glob(f"{line.replace('-', '_').replace('==', '-')}-*.whl"))
            if not found:
                raise ArtifactError(f"the wheels for the endpoint have none of {line}: gather them again (make wheels)")
            for wheel in found:
                shutil.copy(wheel, code / "wheels")


def _unpack(archive: Path, folder: Path) -> None:
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise ArtifactError(f"{archive} cannot be unpacked: {error}") from error
