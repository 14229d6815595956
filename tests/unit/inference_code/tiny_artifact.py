"""Make a small artifact with random weights: all that a server needs, without a training.

By hand: `python tests/unit/inference_code/tiny_artifact.py FOLDER` in an environment that runs inference_code.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import shutil
import sys
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from safetensors.torch import save

ROOT = Path(__file__).parents[3]
CLASSES = ["ant", "bee", "crab", "duck", "eel", "fox"]


def make_artifact(folder: Path, image_size_px: int = 32, classes: Sequence[str] = CLASSES) -> dict[str, Any]:
    """Fill `folder` with an artifact around a small ShuffleNet, golden images included; return its model.json."""
    shutil.copytree(ROOT / "inference_code", folder / "code", ignore=shutil.ignore_patterns("__pycache__"))
    for served in ("deployment.py", "config.yaml"):
        (folder / "code" / served).rename(folder / served)
    torch.manual_seed(0)
    network = torchvision.models.shufflenet_v2_x0_5(weights=None)
    network.fc = torch.nn.Sequential(
        OrderedDict(
            hidden=torch.nn.Linear(1024, 16),
            activation=torch.nn.ReLU(),
            dropout=torch.nn.Dropout(0.5),
            output=torch.nn.Linear(16, len(classes)),
        )
    )
    _normalise(network, image_size_px)
    weights = save(network.state_dict())
    (folder / "model.safetensors").write_bytes(weights)
    description = json.loads((ROOT / "contracts" / "examples" / "model.json").read_text())
    description |= {
        "architecture": "shufflenet_v2_x0_5",
        "head": {"path": "fc", "in_features": 1024, "hidden_units": 16, "dropout": 0.5},
        "classes": list(classes),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "golden": [],
    }
    description["preprocessing"] |= {"resize_px": image_size_px + 4, "image_size_px": image_size_px}
    write_description(folder, description)
    add_golden_images(folder, description)
    return description


def _normalise(network: torch.nn.Module, image_size_px: int) -> None:
    """Set the statistics of batch normalisation, without which all pictures have the same answer."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randn(16, 3, image_size_px, image_size_px))


def write_description(folder: Path, description: dict[str, Any]) -> None:
    (folder / "model.json").write_text(json.dumps(description, indent=2))


def add_golden_images(folder: Path, description: dict[str, Any]) -> None:
    """Answer two pictures with the artifact's own code and note the answers in its model.json."""
    inference = load_inference(folder / "code")
    model = inference.model_fn(folder)
    (folder / "golden").mkdir()
    for number, (suffix, kind) in enumerate([("jpg", "JPEG"), ("png", "PNG")]):
        image = encode(picture(seed=number), kind)
        name = f"golden/{number}.{suffix}"
        (folder / name).write_bytes(image)
        logits = inference.predict_logits(model, [image])[0]
        description["golden"].append(
            {
                "file": name,
                "content_type": f"image/{kind.lower()}",
                "label": description["classes"][int(logits.argmax())],
                "logits": [float(logit) for logit in logits],
            }
        )
    write_description(folder, description)


def load_inference(code: Path) -> Any:
    """Import inference.py from a folder, under a name of its own."""
    name = "inference_of_" + hashlib.sha256(str(code).encode()).hexdigest()[:8]
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, code / "inference.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        if str(code) not in sys.path:
            sys.path.append(str(code))  # its own modules, which are the same in every artifact
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def picture(width: int = 60, height: int = 48, seed: int = 0) -> Image.Image:
    """A picture of smooth colours in which no two corners are alike."""
    corners = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC)


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


if __name__ == "__main__":
    make_artifact(Path(sys.argv[1]))
