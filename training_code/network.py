"""Classification networks by name, torchvision's or timm's: built, given their weights, and given our head.

What a network needs to be rebuilt elsewhere goes into model.json: architecture, where the head sits, preprocessing.
"""

from __future__ import annotations

import difflib
import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from job import JobError
from lean_torchvision import import_torchvision
from safetensors.torch import load_file
from torch import nn

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Networks whose pretrained weights expect channels in -1..1. GoogLeNet and Inception get there from ImageNet's mean and
# std by their transform_input, which no state_dict carries: so it stays off and the preprocessing does it.
HALF = (0.5, 0.5, 0.5)
CENTRED = ("efficientnet_v2_l", "googlenet", "inception_v3")
AUXILIARY = ("googlenet", "inception_v3")  # classifiers for training only: built without
GET_THEM_ELSEWHERE = (
    "Give the job a network that reaches it, or download the file elsewhere and name it: kelpie run --set "
    "model.weights=FILE, or model.weights with its s3:// URI; to train from scratch, set it to none"
)
TIMM = "timm:"  # before the names of timm's networks
FIXED_SIZE_PX = 224  # of vit_* (their position embedding) and maxvit_t (its windows)
LEAST_MOMENTUM = 0.1
CLASSES = 1000  # of torchvision's networks, unless told otherwise


class UnknownArchitecture(JobError):
    """There is no classification network of that name, or none that takes our head."""


class ImageSizeError(JobError):
    """The architecture cannot see images of that size."""


class WeightsUnavailable(JobError):
    """The pretrained weights cannot be had; nothing is trained from scratch unasked."""


class WeightsMismatch(JobError):
    """The given weights are not those of the architecture."""


@dataclass(frozen=True)
class Head:
    """Where the two fully connected layers sit."""

    path: str  # dotted name of the module that they replace
    in_features: int


def open_network(
    architecture: str, image_size_px: int, weights: str, weights_file: Path | None
) -> tuple[nn.Module, Head, str | None]:
    """Return a network with its own classifier, where that sits, and the digest of its pretrained weights, if any.

    weights: as read_weights takes it. Raises what read_weights and build_network raise.
    """
    tensors = read_weights(weights, architecture, weights_file)
    network = build_network(architecture, image_size_px, tensors)
    head = find_head(network, architecture)
    return network, head, None if tensors is None else digest_weights(network.state_dict(), head)


def build_network(architecture: str, image_size_px: int, weights: Mapping[str, torch.Tensor] | None) -> nn.Module:
    """Build a network with its own classifier, from scratch or with the tensors of `weights`.

    Raises UnknownArchitecture, ImageSizeError, WeightsMismatch.
    """
    network = _build_timm(architecture) if architecture.startswith(TIMM) else _build_torchvision(architecture)
    find_head(network, architecture)
    _check_image_size(network, architecture, image_size_px)
    if weights is None:
        _quicken_batch_norm(network)
    else:
        _load(network, weights, architecture)
    return network


def find_head(network: nn.Module, architecture: str) -> Head:
    """Find the classifier, the last of the fully connected layers. Raises UnknownArchitecture if it is none."""
    layers = [(path, module) for path, module in network.named_modules() if isinstance(module, nn.Linear)]
    classes = getattr(network, "num_classes", CLASSES)  # timm's networks say how many they were made for
    if not layers or layers[-1][1].out_features != classes:
        raise UnknownArchitecture(
            f"{architecture} does not end in a fully connected layer that ours could replace: choose another network"
        )
    path, classifier = layers[-1]
    return Head(path, classifier.in_features)


def replace_classifier(network: nn.Module, head: Head, module: nn.Module) -> None:
    """Put `module` in the classifier's place: our head, or nn.Identity() to get features."""
    parent, _, name = head.path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)


def read_weights(source: str, architecture: str, file: Path | None) -> dict[str, torch.Tensor] | None:
    """Read pretrained tensors: source `none` (then None), `default` (torchvision's hub) or `channel` (`file`).

    Raises WeightsUnavailable.
    """
    if source == "none":
        return None
    if source == "default":
        return _download(architecture)
    if file is None:
        raise WeightsUnavailable("weights is channel, but there is no channel weights: give the file by weights_file")
    return _read_file(file)


def digest_weights(weights: Mapping[str, torch.Tensor], head: Head) -> str:
    """Return the SHA-256 of name, type, shape and content of every tensor but the classifier's, sorted by name."""
    total = hashlib.sha256()
    for name in sorted(weights):
        if not name.startswith((f"{head.path}.", *_auxiliary_prefixes())):
            tensor = weights[name].contiguous()
            total.update(f"{name}\t{tensor.dtype}\t{tuple(tensor.shape)}\n".encode())
            total.update(tensor.reshape(-1).view(torch.uint8).numpy() if tensor.numel() else b"")
    return total.hexdigest()


def preprocessing_of(architecture: str, image_size_px: int, fit: str) -> dict[str, Any]:
    """Return model.json's preprocessing. fit: `crop` scales the short side and cuts, `pad` the long side and fills."""
    if architecture.startswith(TIMM):
        mean, std = _timm_normalisation(architecture)
    else:
        mean, std = (HALF, HALF) if architecture in CENTRED else (IMAGENET_MEAN, IMAGENET_STD)
    return {
        "resize_px": image_size_px,
        "image_size_px": image_size_px,
        "fit": fit,
        "interpolation": "bilinear",
        "mean": list(mean),
        "std": list(std),
    }


def _build_torchvision(architecture: str) -> nn.Module:
    torchvision = import_torchvision()
    names = torchvision.models.list_models(module=torchvision.models)
    if architecture not in names:
        raise UnknownArchitecture(
            _unknown(f"torchvision {torchvision.__version__}", architecture, names) + f"; timm's are {TIMM}<name>"
        )
    if architecture.startswith("mnasnet"):
        raise UnknownArchitecture(
            f"{architecture} loads no tensors without a version that only PyTorch's own files carry, and an artifact "
            "does not: choose another network, such as mobilenet_v3_small"
        )
    options: dict[str, Any] = {"aux_logits": False, "init_weights": True} if architecture in AUXILIARY else {}
    network: nn.Module = torchvision.models.get_model(architecture, weights=None, **options)
    return network


def _build_timm(architecture: str) -> nn.Module:
    import timm  # it imports all of its networks: only where one of them is asked for

    name = architecture.removeprefix(TIMM)
    if not timm.is_model(name):
        raise UnknownArchitecture(_unknown(f"timm {timm.__version__}", name, timm.list_models()))
    network: nn.Module = timm.create_model(name, pretrained=False)
    return network


def _unknown(library: str, name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=5, cutoff=0.5)
    return f"{library} has no classification network {name!r}; " + (
        f"close to it: {', '.join(close)}" if close else f"it has {len(names)}, such as {', '.join(names[:5])}"
    )


def _timm_normalisation(architecture: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    import timm

    configuration = timm.get_pretrained_cfg(architecture.removeprefix(TIMM))
    if configuration is None:
        return IMAGENET_MEAN, IMAGENET_STD
    return configuration.mean, configuration.std


def _check_image_size(network: nn.Module, architecture: str, image_size_px: int) -> None:
    if architecture.startswith(("vit_", "maxvit_")) and image_size_px != FIXED_SIZE_PX:
        raise ImageSizeError(
            f"{architecture} takes images of {FIXED_SIZE_PX} px only, image_size_px is {image_size_px}"
        )
    try:
        with torch.inference_mode():
            network.eval()(torch.zeros(1, 3, image_size_px, image_size_px))
    except (AssertionError, RuntimeError) as error:  # timm's transformers assert
        raise ImageSizeError(
            f"{architecture} cannot see images of {image_size_px} px: {error}; raise image_size_px or choose another"
        ) from error
    network.train()


def _quicken_batch_norm(network: nn.Module) -> None:
    """Let batch norm's running statistics settle within a short training.

    Some networks (MobileNetV3: momentum 0.01) average over hundreds of of steps; a training of a hundred steps then
    ends with a network that is right in train mode and guesses in eval mode.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.momentum is not None:
            module.momentum = max(module.momentum, LEAST_MOMENTUM)


def _load(network: nn.Module, weights: Mapping[str, torch.Tensor], architecture: str) -> None:
    """Load all but the classifier, which is replaced anyway. Raises WeightsMismatch naming the first wrong tensor."""
    classifier = f"{find_head(network, architecture).path}."
    own = network.state_dict()
    for name, tensor in own.items():
        if name.startswith(classifier) or name.endswith("num_batches_tracked"):
            continue
        if name not in weights:
            raise WeightsMismatch(f"the weights have no tensor {name}, {architecture} needs one of {_shape(tensor)}")
        if weights[name].shape != tensor.shape:
            raise WeightsMismatch(
                f"tensor {name} is {_shape(weights[name])} in the weights, {architecture} needs {_shape(tensor)}"
            )
    foreign = [
        name for name in weights if name not in own and not name.startswith((classifier, *_auxiliary_prefixes()))
    ]
    if foreign:
        raise WeightsMismatch(f"the weights have {len(foreign)} tensors that {architecture} lacks, first {foreign[0]}")
    network.load_state_dict(
        {name: t for name, t in weights.items() if name in own and t.shape == own[name].shape}, False
    )


def _download(architecture: str) -> dict[str, torch.Tensor]:
    if architecture.startswith(TIMM):
        return _download_timm(architecture)
    try:
        weights = import_torchvision().models.get_model_weights(architecture)["DEFAULT"]
    except (KeyError, ValueError) as error:
        raise WeightsUnavailable(
            f"torchvision has no pretrained weights for {architecture}: set weights to none or to a file"
        ) from error
    try:
        return dict(weights.get_state_dict(progress=False, check_hash=True))
    except (OSError, RuntimeError) as error:  # no network; a file that is not what its name says
        raise WeightsUnavailable(f"{weights.url} cannot be had: {error}. {GET_THEM_ELSEWHERE}") from error


def _download_timm(architecture: str) -> dict[str, torch.Tensor]:
    import timm

    try:
        return dict(timm.create_model(architecture.removeprefix(TIMM), pretrained=True).state_dict())
    except Exception as error:  # the hub's client raises its own, and timm RuntimeError where there are none
        raise WeightsUnavailable(
            f"timm's weights of {architecture} cannot be had: {error}. {GET_THEM_ELSEWHERE}"
        ) from error


def _read_file(file: Path) -> dict[str, torch.Tensor]:
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch says at length how to run what is in the file: that is not to be
        raise WeightsUnavailable(
            f"{file.name} cannot be read: it was not saved by torch, or holds more than tensors; expected are "
            ".safetensors or a .pth/.pt with tensors only"
        ) from error
    except Exception as error:  # torch.load raises whatever the pickle in the file leads it to
        raise WeightsUnavailable(
            f"{file.name} cannot be read: {error}; expected are .safetensors or a .pth/.pt with tensors only"
        ) from error
    for key in ("state_dict", "model"):  # training scripts wrap it
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise WeightsUnavailable(f"{file.name} is no state_dict: expected names and tensors")
    return dict(content)


def _auxiliary_prefixes() -> tuple[str, ...]:
    return "AuxLogits.", "aux1.", "aux2."


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(str(length) for length in tensor.shape) or "a scalar"
