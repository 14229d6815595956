"""Training and serving share nothing but the artifact: what each of them has for itself is compared here."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

TRAINING_CODE = Path(__file__).parents[3] / "training_code"


@pytest.fixture(scope="module")
def training():
    """A function that imports a module of training_code, as its scripts do."""
    before = set(sys.modules)
    sys.path.insert(0, str(TRAINING_CODE))
    yield importlib.import_module
    sys.path.remove(str(TRAINING_CODE))
    for name in set(sys.modules) - before:
        if TRAINING_CODE in Path(getattr(sys.modules[name], "__file__", None) or "/").parents:
            del sys.modules[name]


def pictures(tiny):
    """Encoded images of every kind that is served, by name."""
    upright = tiny.picture(301, 200)
    turned = Image.Exif()
    turned[0x0112] = 6
    cut_out = upright.convert("RGBA")
    cut_out.putalpha(Image.linear_gradient("L").resize(cut_out.size))
    grey = np.linspace(0, 65535, 90 * 70).astype(np.uint16).reshape(90, 70)
    return {
        "jpeg": tiny.encode(upright, "JPEG", quality=90),
        "turned jpeg": tiny.encode(upright, "JPEG", exif=turned),
        "grey jpeg": tiny.encode(upright.convert("L"), "JPEG"),
        "cmyk jpeg": tiny.encode(upright.convert("CMYK"), "JPEG"),
        "png": tiny.encode(upright),
        "transparent png": tiny.encode(cut_out),
        "palette png": tiny.encode(upright.quantize(17)),
        "16-bit png": tiny.encode(Image.fromarray(grey)),
        "narrow png": tiny.encode(tiny.picture(37, 311)),
    }


@pytest.mark.parametrize("fit", ["crop", "pad"])
def test_the_pixels_that_a_network_is_trained_on_are_those_that_it_is_asked_about(
    decoding, tiny, training, tmp_path, fit
):
    squares = training("pictures").squares
    preprocessing = {
        "resize_px": 36,
        "image_size_px": 32,
        "fit": fit,
        "interpolation": "bilinear",
        "mean": [0] * 3,
        "std": [1] * 3,
    }
    for name, image in pictures(tiny).items():
        (tmp_path / name).write_bytes(image)
        trained = squares(tmp_path, [{"path": name}], preprocessing).read(0)
        served = decoding.preprocess(image, preprocessing).transpose(1, 2, 0) * 255
        np.testing.assert_allclose(served, trained, atol=1e-3, err_msg=name)


@pytest.mark.parametrize(
    ("architecture", "image_size_px"),
    [("resnet18", 32), ("mobilenet_v3_small", 32), ("shufflenet_v2_x0_5", 32), ("googlenet", 64), ("vit_b_32", 224)],
)
def test_the_network_that_was_trained_is_the_one_that_is_served(networks, training, architecture, image_size_px):
    network, head = training("network"), training("head")
    trained = network.build_network(architecture, image_size_px, None)
    place = network.find_head(trained, architecture)
    network.replace_classifier(trained, place, head.build_head(place.in_features, 8, 3, 0.5))
    served = networks.build_network(
        {
            "architecture": architecture,
            "head": {"path": place.path, "in_features": place.in_features, "hidden_units": 8, "dropout": 0.5},
            "classes": ["a", "b", "c"],
        }
    )
    served.load_state_dict(trained.state_dict())
    images = torch.rand(2, 3, image_size_px, image_size_px)
    with torch.inference_mode():
        torch.testing.assert_close(served.eval()(images), trained.eval()(images))
