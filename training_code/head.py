"""The two fully connected layers on top of every network, as in the seed: Linear, ReLU, dropout, Linear."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def build_head(in_features: int, hidden_units: int, classes: int, dropout: float) -> nn.Sequential:
    """Return the head, (N, in_features) to logits (N, classes). The serving code builds it with the same names."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        hidden=nn.Linear(in_features, hidden_units),
        activation=nn.ReLU(),
        dropout=nn.Dropout(dropout),
        output=nn.Linear(hidden_units, classes),
    )
    return nn.Sequential(layers)
