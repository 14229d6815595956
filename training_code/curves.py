"""What findings.json keeps of a training to draw: curves, and gradient norms by layer over steps, both thinned."""

from __future__ import annotations

import math
from typing import Any

from saved import ACCURACY, GRADIENTS, LEARNING_RATE, SCALARS, SavedStep

POINTS = 500
COLUMNS = 100
LAYERS = 100


class Curves:
    """Curves so far."""

    def __init__(self) -> None:
        self._curves: dict[tuple[str, str], _Series] = {}
        self._norms = _Series(COLUMNS)

    def look(self, saved: SavedStep) -> None:
        """Take in a saved step."""
        mode = "train" if saved.training else "eval"
        for name, value in (
            ("loss", saved.plain_loss()),
            ("accuracy", saved.scalar(SCALARS, ACCURACY)),
            ("learning_rate", saved.scalar(SCALARS, LEARNING_RATE)),
        ):
            if value is not None:
                self._curves.setdefault((name, mode), _Series(POINTS)).add(saved.step, value)
        norms = {name: one.l2 for name, one in saved.reduced(GRADIENTS).items() if name.endswith("weight")}
        if norms:
            self._norms.add(saved.step, norms)

    def curves(self) -> list[dict[str, Any]]:
        """Return them as findings.json has them."""
        return [
            {"name": name, "mode": mode, "steps": series.steps, "values": [_finite(value) for value in series.values]}
            for (name, mode), series in self._curves.items()
        ]

    def gradient_norms(self) -> dict[str, Any]:
        """Return them as findings.json has them: the layers in the network's order."""
        names = list(dict.fromkeys(name for norms in self._norms.values for name in norms))
        chosen = names[:: math.ceil(len(names) / LAYERS)] if names else []
        layers = [
            {
                "name": name.removeprefix("gradient/").partition("_")[2],
                "norms": [_finite(norms.get(name)) for norms in self._norms.values],
            }
            for name in chosen
        ]
        return {"steps": self._norms.steps, "layers": layers}


class _Series:
    """Values over steps; when they are too many every other is left out, and every other is taken from then on."""

    def __init__(self, most: int):
        self._most = most
        self._every = 1
        self._given = 0
        self.steps: list[int] = []
        self.values: list[Any] = []

    def add(self, step: int, value: Any) -> None:
        if self._given % self._every == 0:
            self.steps.append(step)
            self.values.append(value)
        self._given += 1
        if len(self.steps) > self._most:
            self._every *= 2
            self.steps, self.values = self.steps[::2], self.values[::2]


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
