"""What fine-tuning unfreezes, and at what rate."""

from __future__ import annotations

import pytest
import torch
from network import build_network, find_head
from recipe import Phase
from stages import freeze, parameter_groups, stages_of, train_unfrozen

FINE = Phase("fine_tune", 1.0, 1e-8, 0.1, 4, 1, stage_decay=0.5)


@pytest.mark.parametrize(
    ("architecture", "last", "before"),
    [
        ("resnet18", "layer4", "layer3"),
        ("efficientnet_b0", "features.8", "features.5"),
        ("timm:tf_efficientnet_lite0", "blocks.6", "blocks.4"),
        ("vit_b_32", "encoder.layers.encoder_layer_11", "encoder.layers.encoder_layer_7"),
    ],
)
def test_the_last_stage_is_what_works_at_the_last_resolution(architecture: str, last: str, before: str) -> None:
    network = build_network(architecture, 224, None)
    head = find_head(network, architecture).path
    stages = stages_of(network, head, 224)
    of_head = max(stages.values())

    assert {stage for name, stage in stages.items() if name.startswith(f"{head}.")} == {of_head}
    assert {stage for name, stage in stages.items() if name.startswith(f"{last}.")} == {of_head - 1}
    assert of_head - 1 not in {stage for name, stage in stages.items() if name.startswith(f"{before}.")}
    assert next(iter(stages.values())) == 0


@pytest.mark.parametrize("keep_statistics", [False, True])
def test_what_is_frozen_keeps_its_values_and_its_statistics(keep_statistics: bool) -> None:
    network = build_network("resnet18", 64, None)
    stages = stages_of(network, "fc", 64)
    freeze(network, stages, "last_stage")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    train_unfrozen(network, keep_statistics)
    network(torch.rand(4, 3, 64, 64)).sum().backward()

    after = network.state_dict()
    assert torch.equal(after["layer3.1.bn2.running_mean"], before["layer3.1.bn2.running_mean"])
    kept = torch.equal(after["layer4.1.bn2.running_mean"], before["layer4.1.bn2.running_mean"])
    assert kept == keep_statistics
    assert {name for name, parameter in network.named_parameters() if parameter.grad is not None} == {
        name for name in stages if name.startswith(("layer4", "fc"))
    }


def test_rates_fall_from_stage_to_stage_and_nothing_one_dimensional_decays() -> None:
    network = build_network("resnet18", 64, None)
    stages = stages_of(network, "fc", 64)
    freeze(network, stages, "all")
    groups = parameter_groups(network, stages, FINE)
    of = {id(parameter): group for group in groups for parameter in group.parameters}
    group = {name: of[id(parameter)] for name, parameter in network.named_parameters()}

    assert group["fc.weight"].learning_rate == 1.0
    assert group["layer4.0.conv1.weight"].learning_rate == 0.5
    assert group["layer3.0.conv1.weight"].learning_rate == 0.25
    assert (group["fc.weight"].weight_decay, group["fc.bias"].weight_decay) == (0.1, 0.0)
    assert sum(len(group.parameters) for group in groups) == len(list(network.parameters()))
