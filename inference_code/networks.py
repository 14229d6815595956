"""The trained network, from model.json and its weights: the only module here that needs torch."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
import torchvision
from artifacts import ArtifactError
from safetensors import SafetensorError
from safetensors.torch import load

TIMM = "timm:"  # before the names of timm's networks
AUXILIARY = ("googlenet", "inception_v3")  # their classifiers for training only are not part of an artifact


def load_network(description: dict[str, Any], weights: bytes) -> torch.nn.Module:
    """Return the network that model.json describes, in eval mode. weights: safetensors. Raises ArtifactError."""
    network = build_network(description)
    try:
        network.load_state_dict(load(weights))
    except (SafetensorError, RuntimeError) as error:
        raise ArtifactError(
            f"{description['weights_file']} does not fit the {description['architecture']} of model.json: {error}"
        ) from error
    return network.eval()


def build_network(description: dict[str, Any]) -> torch.nn.Module:
    """Build the network with the seed's two fully connected layers in place of its classifier."""
    architecture, head = description["architecture"], description["head"]
    network = _build_timm(architecture) if architecture.startswith(TIMM) else _build_torchvision(architecture)
    try:
        replaced = network.get_submodule(head["path"])
    except AttributeError as error:
        raise ArtifactError(f"{architecture} has no layer {head['path']}: {error}") from error
    if getattr(replaced, "in_features", None) != head["in_features"]:
        raise ArtifactError(f"{head['path']} of {architecture} is {replaced}, expected {head['in_features']} inputs")
    parent, _, name = head["path"].rpartition(".")
    layers = OrderedDict(
        hidden=torch.nn.Linear(head["in_features"], head["hidden_units"]),
        activation=torch.nn.ReLU(),
        dropout=torch.nn.Dropout(head["dropout"]),
        output=torch.nn.Linear(head["hidden_units"], len(description["classes"])),
    )
    setattr(network.get_submodule(parent), name, torch.nn.Sequential(layers))
    return network


def _build_torchvision(architecture: str) -> torch.nn.Module:
    options = {"aux_logits": False, "init_weights": False} if architecture in AUXILIARY else {}
    try:
        network: torch.nn.Module = torchvision.models.get_model(architecture, weights=None, **options)
    except ValueError as error:
        raise ArtifactError(f"torchvision {torchvision.__version__} has no {architecture}: {error}") from error
    return network


def _build_timm(architecture: str) -> torch.nn.Module:
    import timm  # only an artifact that needs it brings it along

    try:
        network: torch.nn.Module = timm.create_model(architecture.removeprefix(TIMM), pretrained=False)
    except RuntimeError as error:
        raise ArtifactError(f"timm {timm.__version__} has no {architecture}: {error}") from error
    return network
