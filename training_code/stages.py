"""A network's stages: what fine-tuning unfreezes together, and how near to the images it stands.

A stage is what works at one resolution: ResNet's layer4, EfficientNet's blocks at 7 x 7. It is found by running the
network, so that it holds for every architecture. Networks that keep one resolution (transformers) are cut into equal
parts by depth.
"""

from __future__ import annotations

from typing import Any

import torch
from optimizer import Group
from recipe import Phase
from torch import nn

PARTS = 4  # of a network without resolutions
IMAGE = 4  # dimensions of a batch of images or feature maps


def stages_of(network: nn.Module, head_path: str, image_size_px: int) -> dict[str, int]:
    """Return the stage of each parameter by its name, from 0 beside the images to the head's, which is the last."""
    modules = [
        (path, module)
        for path, module in network.named_modules()
        if any(True for _ in module.parameters(recurse=False)) and not _is_below(path, head_path)
    ]
    sides = _sides(network, modules, image_size_px)
    resolutions = sorted({side for side in sides.values() if side}, reverse=True)
    if len(resolutions) > 1:
        stage_of_module = {path: resolutions.index(side) for path, side in sides.items() if side}
        body = len(resolutions)
    else:
        stage_of_module = {path: position * PARTS // len(modules) for position, (path, _) in enumerate(modules)}
        body = PARTS
    stages, latest = {}, 0
    for name, _ in network.named_parameters():
        path = name.rpartition(".")[0]
        if _is_below(path, head_path):
            stages[name] = body
        else:
            latest = stage_of_module.get(path, latest)  # what is never called by itself belongs to what precedes it
            stages[name] = latest
    return stages


def freeze(network: nn.Module, stages: dict[str, int], unfreeze: str) -> None:
    """Let only the parameters learn that `unfreeze` names: the head, the last stage and the head, or all."""
    last = max(stages.values())
    first = {"head": last, "last_stage": last - 1, "all": 0}[unfreeze]
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(stages[name] >= first)


def train_unfrozen(network: nn.Module, keep_statistics: bool) -> None:
    """Set train mode, except where nothing learns and, with `keep_statistics`, in batch norms."""
    network.train()
    for module in network.modules():
        own = list(module.parameters(recurse=False))
        is_kept = keep_statistics and isinstance(module, nn.BatchNorm2d)
        if is_kept or (own and not any(parameter.requires_grad for parameter in own)):
            module.eval()


def parameter_groups(network: nn.Module, stages: dict[str, int], phase: Phase) -> list[Group]:
    """Return what learns, by its rate: each stage's is `stage_decay` of the one after it, so that the head's is whole.

    Where stages differ, biases and scales are not decayed: pulling those to zero undoes what the pretraining knew.
    """
    last = max(stages.values())
    members: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            pretrained = phase.stage_decay < 1
            key = (stages[name], parameter.ndim > 1) if pretrained else (last, True)
            members.setdefault(key, []).append(parameter)
    return [
        Group(parameters, phase.learning_rate * phase.stage_decay ** (last - stage), phase.weight_decay * is_decayed)
        for (stage, is_decayed), parameters in sorted(members.items(), key=lambda item: item[0])
    ]


def _sides(network: nn.Module, modules: list[tuple[str, nn.Module]], image_size_px: int) -> dict[str, int | None]:
    """Return the height of what each module makes of an image, None for what is no feature map."""
    sides: dict[str, int | None] = {}

    def note(path: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            is_map = isinstance(output, torch.Tensor) and output.ndim == IMAGE and output.shape[2] > 1
            if is_map or path not in sides:
                sides[path] = output.shape[2] if is_map else None

        return hook

    handles = [module.register_forward_hook(note(path)) for path, module in modules]
    was_training = network.training
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, 3, image_size_px, image_size_px))
    finally:
        network.train(was_training)
        for handle in handles:
            handle.remove()
    return sides


def _is_below(path: str, head_path: str) -> bool:
    return path == head_path or path.startswith(f"{head_path}.")
