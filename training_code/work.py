"""What is trained on what: a head on frozen features, a whole network on images, and how one becomes the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batches import Batches, FeatureBatches, ImageBatches, augmentation_of
from data import images_of
from distributed import Processes
from head import build_head
from optimizer import Group
from options import OptionsError
from pictures import scaled_pictures, squares
from precision import choose_device, training_dtype
from recipe import Phase, class_weights
from torch import nn
from train_options import Options

BALANCED_RATIO = 2.0  # of the largest class to the smallest, up to which all count alike
PICTURE_SHARE = 1.15  # of the side that serving sees: what augmentation cuts from is not enlarged much
MIRROR_TEST_IMAGES = 512
MIRROR_TEST_Z = 1.64  # one-sided, 95 %


@dataclass(frozen=True)
class Model:
    """A whole network, and what model.json says about it."""

    network: nn.Module
    head: dict[str, Any]
    preprocessing: dict[str, Any]
    pretrained_sha256: str | None


@dataclass(frozen=True)
class Work:
    """What is trained on what."""

    trained: nn.Module
    batches: Batches
    device: torch.device
    precision: torch.dtype
    groups: Callable[[Phase], list[Group]]
    assemble: Callable[[], Model]
    """The whole network, with what was trained in it."""
    mirror: bool = False


def on_features(options: Options, manifest: dict[str, Any]) -> Work:
    """Return the training of a head on frozen features."""
    from features import read_features

    if options.features is None:
        raise OptionsError("mode frozen_features needs features")
    splits = {split: read_features(options.features, manifest, split) for split in ("train", "valid")}
    device = choose_device()
    trained = _head_builder(options, manifest)(manifest["features"]["dimension"]).to(device)

    def assemble() -> Model:
        model = _build_model(options, lambda _: trained)
        if model.pretrained_sha256 != manifest["features"]["weights_sha256"]:
            raise OptionsError(
                f"the features are of the weights {manifest['features']['weights_sha256'][:12]}, "
                f"the ones given are {str(model.pretrained_sha256)[:12]}: give those that PrepareDataset had"
            )
        return Model(model.network.to(device), model.head, model.preprocessing, model.pretrained_sha256)

    def groups(phase: Phase) -> list[Group]:
        return [Group(list(trained.parameters()), phase.learning_rate, phase.weight_decay)]

    batches = FeatureBatches(splits["train"], splits["valid"], device)
    return Work(trained, batches, device, torch.float32, groups, assemble)


def on_images(options: Options, manifest: dict[str, Any]) -> Work:
    """Return the training of a whole network on images, from scratch or from pretrained weights."""
    model = _build_model(options, _head_builder(options, manifest))
    return _with_images(options, manifest, model, "all", mirror=options.mirror == "true")


def fine_tuning(options: Options, manifest: dict[str, Any], head: Work) -> Work:
    """Return what follows the head's training: the network with that head, as much of it unfrozen as is asked for."""
    model = head.assemble()
    mirror = options.mirror == "true"
    if options.mirror == "auto" and options.dataset is not None:
        network = model.network.to(head.device, memory_format=torch.channels_last)
        mirror = _survives_mirrors(options.dataset, manifest, network, model.preprocessing, head.device)
    return _with_images(options, manifest, model, options.unfreeze, mirror)


def criterion_of(options: Options, manifest: dict[str, Any], phase: Phase, device: torch.device) -> nn.CrossEntropyLoss:
    """Return the loss of a phase."""
    weights = _class_weights(options, manifest)
    tensor = None if weights is None else torch.tensor(weights, device=device)
    return nn.CrossEntropyLoss(weight=tensor, label_smoothing=phase.label_smoothing)


def describe_decisions(options: Options, manifest: dict[str, Any], work: Work, processes: Processes) -> dict[str, Any]:
    """Return training_history.json's decisions."""
    trained = sum(parameter.numel() for parameter in work.trained.parameters() if parameter.requires_grad)
    everything = sum(parameter.numel() for parameter in work.trained.parameters())
    return {
        "device": work.device.type,
        "precision": str(work.precision).removeprefix("torch."),
        "processes": processes.number,
        "threads": torch.get_num_threads(),
        "unfreeze": options.unfreeze if options.mode == "frozen_features" else "all",
        "trained_parameters": trained,
        "frozen_parameters": everything - trained,
        "mirror": work.mirror,
        "class_weights": _class_weights(options, manifest),
    }


def _with_images(options: Options, manifest: dict[str, Any], model: Model, unfreeze: str, mirror: bool) -> Work:
    from stages import freeze, parameter_groups, stages_of

    if options.dataset is None:
        raise OptionsError("training on images needs dataset")
    device = choose_device()
    stages = stages_of(model.network, model.head["path"], options.image_size_px)
    freeze(model.network, stages, unfreeze)
    entries = {split: images_of(manifest, split) for split in ("train", "valid")}
    labels = {split: [entry["class_index"] for entry in entries[split]] for split in entries}
    train = squares(options.dataset, entries["train"], model.preprocessing)
    if options.augmentation == "cut":
        side = round(PICTURE_SHARE * options.image_size_px)
        if options.fit == "pad":  # what is cut out has margins too, as what is served
            larger = {**model.preprocessing, "image_size_px": side, "resize_px": side}
            train = squares(options.dataset, entries["train"], larger)
        else:
            train = scaled_pictures(options.dataset, entries["train"], side)
    batches = ImageBatches(
        train,
        labels["train"],
        squares(options.dataset, entries["valid"], model.preprocessing),
        labels["valid"],
        model.preprocessing,
        augmentation_of(options.augmentation, mirror, options.seed, model.preprocessing),
        device,
    )
    network = model.network.to(device, memory_format=torch.channels_last)
    precision = training_dtype(device, options.image_size_px)
    return Work(
        network,
        batches,
        device,
        precision,
        lambda phase: parameter_groups(network, stages, phase),
        lambda: model,
        mirror,
    )


@torch.inference_mode()
def _survives_mirrors(
    dataset: Path, manifest: dict[str, Any], network: nn.Module, preprocessing: dict[str, Any], device: torch.device
) -> bool:
    """Return whether the network, which never saw a mirrored image, knows them as well as the images themselves.

    Validation images, by pairs: mirrored ones may not be lost significantly more often than won (McNemar).
    """
    from augmentation import mirrored
    from batches import VALID_BATCH, normalise
    from data import spread_over_classes
    from engine import computing_in

    entries = spread_over_classes(images_of(manifest, "valid"), MIRROR_TEST_IMAGES)
    pictures = squares(dataset, entries, preprocessing)
    labels = np.array([entry["class_index"] for entry in entries])
    lost = won = 0
    network.eval()
    for start in range(0, len(entries), VALID_BATCH):
        chosen = range(start, min(start + VALID_BATCH, len(entries)))
        seen = np.stack([pictures.read(index) for index in chosen])
        right = []
        for pixels in (seen, np.ascontiguousarray(mirrored(seen))):
            with computing_in(training_dtype(device, preprocessing["image_size_px"]), device):
                answers = network(normalise(pixels, preprocessing, device))
            right.append(answers.argmax(1).cpu().numpy() == labels[chosen.start : chosen.stop])
        lost += int((right[0] & ~right[1]).sum())
        won += int((~right[0] & right[1]).sum())
    survives = lost - won <= MIRROR_TEST_Z * (lost + won) ** 0.5
    print(
        f"mirrored, {lost} of {len(entries)} validation images are lost and {won} won: "
        f"training images are {'mirrored at random' if survives else 'never mirrored'}",
        flush=True,
    )
    return survives


def _head_builder(options: Options, manifest: dict[str, Any]) -> Callable[[int], nn.Module]:
    return lambda features: build_head(features, options.hidden_units, len(manifest["classes"]), options.dropout)


def _build_model(options: Options, make_head: Callable[[int], nn.Module]) -> Model:
    # torchvision takes seconds to import: not where only a head trains
    from network import open_network, preprocessing_of, replace_classifier

    network, head, digest = open_network(
        options.architecture, options.image_size_px, options.weights, options.weights_file
    )
    replace_classifier(network, head, make_head(head.in_features))
    described = {
        "path": head.path,
        "in_features": head.in_features,
        "hidden_units": options.hidden_units,
        "dropout": options.dropout,
    }
    preprocessing = preprocessing_of(options.architecture, options.image_size_px, options.fit)
    return Model(network, described, preprocessing, digest)


def _class_weights(options: Options, manifest: dict[str, Any]) -> list[float] | None:
    if not options.class_weights:
        return None
    counts = manifest["counts"]["train"]
    return class_weights([counts[name] for name in manifest["classes"]], BALANCED_RATIO)
