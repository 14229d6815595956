from __future__ import annotations

import subprocess
import sys
import urllib.error
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from head import build_head
from network import (
    AUXILIARY,
    ImageSizeError,
    UnknownArchitecture,
    WeightsMismatch,
    WeightsUnavailable,
    build_network,
    digest_weights,
    find_head,
    preprocessing_of,
    read_weights,
    replace_classifier,
)

ALL = torchvision.models.list_models(module=torchvision.models)
SMALL = "shufflenet_v2_x0_5"


# The first of each family; regnets read tensors while they are built, which no meta device has
FAMILIES = [
    name
    for number, name in enumerate(ALL)
    if number == 0 or (name[:4] != ALL[number - 1][:4] and not name.startswith("regnet"))
]


@pytest.mark.parametrize("architecture", FAMILIES)
def test_every_architecture_takes_our_head_or_is_refused(architecture: str) -> None:
    options: dict[str, Any] = {"aux_logits": False, "init_weights": False} if architecture in AUXILIARY else {}
    with torch.device("meta"):
        network = torchvision.models.get_model(architecture, weights=None, **options)
        if architecture.startswith("squeezenet"):
            with pytest.raises(UnknownArchitecture, match="does not end in a fully connected layer"):
                find_head(network, architecture)
            return
        head = find_head(network, architecture)
        replace_classifier(network, head, build_head(head.in_features, 4, 3, 0.0))
        size = 299 if architecture == "inception_v3" else 224

        assert network.eval()(torch.empty(2, 3, size, size)).shape == (2, 3)


def test_a_network_whose_tensors_an_artifact_cannot_carry_is_refused() -> None:
    with pytest.raises(UnknownArchitecture, match="mnasnet0_5 loads no tensors without a version"):
        build_network("mnasnet0_5", 64, None)


@pytest.mark.parametrize("architecture", ALL)
def test_mean_and_std_are_those_of_the_pretrained_weights(architecture: str) -> None:
    transforms = torchvision.models.get_model_weights(architecture)["DEFAULT"].transforms()
    ours = preprocessing_of(architecture, 224, "crop")
    if architecture in AUXILIARY:  # ImageNet's, and then transform_input, make (pixel - 0.5) / 0.5
        assert ours["mean"] == ours["std"] == [0.5, 0.5, 0.5]
    else:
        assert (ours["mean"], ours["std"]) == (transforms.mean, transforms.std)


@pytest.mark.parametrize("architecture", ["resnet18", "mobilenet_v3_small", "googlenet", SMALL, "regnet_y_400mf"])
def test_small_images_train(architecture: str) -> None:
    network = build_network(architecture, 32, None)
    head = find_head(network, architecture)
    replace_classifier(network, head, build_head(head.in_features, 8, 3, 0.1))

    network.train()(torch.randn(4, 3, 32, 32)).sum().backward()

    assert all(parameter.grad is not None for parameter in network.parameters())


def test_an_unknown_name_is_answered_with_close_ones() -> None:
    with pytest.raises(UnknownArchitecture, match=r"'resnet51'; close to it: .*resnet50"):
        build_network("resnet51", 224, None)


def test_segmentation_networks_are_no_classifiers() -> None:
    with pytest.raises(UnknownArchitecture):
        build_network("fcn_resnet50", 224, None)


@pytest.mark.parametrize(("architecture", "size"), [("alexnet", 32), ("vit_b_16", 32)])
def test_a_size_that_the_architecture_cannot_see_is_refused(architecture: str, size: int) -> None:
    with pytest.raises(ImageSizeError, match=f"{architecture} .*32"):
        build_network(architecture, size, None)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth"])
def test_weights_from_a_file(weights_file: Callable[..., Path], name: str) -> None:
    classifier = {"fc.weight": torch.zeros(7, 1024), "fc.bias": torch.zeros(7)}  # of another data set: replaced anyway
    file = weights_file(SMALL, name, **classifier)

    weights = read_weights("channel", SMALL, file)
    assert weights is not None
    network = build_network(SMALL, 32, weights)

    assert torch.equal(network.state_dict()["conv5.0.weight"], weights["conv5.0.weight"])


def test_the_first_wrong_tensor_is_named_with_both_shapes(weights_file: Callable[..., Path]) -> None:
    file = weights_file(SMALL, **{"conv5.0.weight": torch.zeros(3, 2, 1, 1)})

    with pytest.raises(
        WeightsMismatch, match=r"conv5\.0\.weight is 3 x 2 x 1 x 1 in the weights, .* needs 1024 x 192 x 1 x 1"
    ):
        build_network(SMALL, 32, read_weights("channel", SMALL, file))


def test_a_missing_and_a_foreign_tensor_are_named(weights_file: Callable[..., Path]) -> None:
    missing = read_weights("channel", SMALL, weights_file(SMALL, **{"conv1.0.weight": None}))
    with pytest.raises(WeightsMismatch, match=r"no tensor conv1\.0\.weight"):
        build_network(SMALL, 32, missing)
    foreign = read_weights("channel", SMALL, weights_file(SMALL, surplus=torch.zeros(1)))
    with pytest.raises(WeightsMismatch, match=r"1 tensors that .* lacks, first surplus"):
        build_network(SMALL, 32, foreign)


def test_auxiliary_classifiers_in_the_weights_are_left_out(weights_file: Callable[..., Path]) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # GoogLeNet's, on how it initialises
        file = weights_file("googlenet")

    network = build_network("googlenet", 32, read_weights("channel", "googlenet", file))

    assert not [name for name in network.state_dict() if name.startswith("aux")]


def test_weights_that_cannot_be_downloaded_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)

    with pytest.raises(WeightsUnavailable, match=r"no route.*model\.weights=FILE, or .* its s3:// URI"):
        read_weights("default", "resnet18", None)


def test_a_file_with_more_than_tensors_is_not_opened(tmp_path: Path) -> None:
    file = tmp_path / "weights.pth"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "optimizer": Path("x")}, file)

    with pytest.raises(
        WeightsUnavailable, match=r"weights\.pth cannot be read: it .* holds more than tensors"
    ) as raised:
        read_weights("channel", SMALL, file)
    assert "weights_only" not in str(raised.value)


def test_the_weights_digest_follows_the_backbone_only(weights_file: Callable[..., Path]) -> None:
    network = build_network(SMALL, 32, read_weights("channel", SMALL, weights_file(SMALL)))
    head, before = find_head(network, SMALL), network.state_dict()

    assert digest_weights({**before, "fc.weight": torch.zeros(2, 1024)}, head) == digest_weights(before, head)
    assert digest_weights({**before, "conv1.1.bias": torch.ones(24)}, head) != digest_weights(before, head)


def test_networks_are_built_without_the_compiler_that_torchvision_still_imports() -> None:
    """Once the second fails, lean_torchvision.py can go."""

    def imports_the_compiler(code: str) -> bool:
        script = f"{code}; import sys; sys.exit(2 if 'torch._dynamo' in sys.modules else 3)"
        folder = Path(__file__).parents[3] / "training_code"
        return subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=folder, check=False).returncode == 2

    assert not imports_the_compiler("import network; network.build_network('resnet18', 32, None)")
    assert imports_the_compiler("import torchvision")
