"""When a trial is stopped before its end: a rule reads the objective after each epoch, and says when it is enough.

As on AWS, a trial reports an epoch by emitting the objective metric: its n-th value is that of the n-th epoch.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping
from typing import Any, Protocol

from localcloud.sagemaker.search import RangeError, Search

EPOCHS = ("epochs", "numepochs", "n-epochs", "n_epochs", "num_epochs")
"""The static hyperparameters that say how many epochs a trial has, in the order in which AWS looks for them."""
MOST_EPOCHS = 20_000


class StoppingRule(Protocol):
    def stops(self, number: int, values: list[float]) -> bool:
        """Whether trial `number` is stopped after these epochs. Called once for each epoch, in their order."""

    def finished(self, epochs: int) -> bool:
        """Whether a trial that was stopped after so many epochs had all that it was to have."""

    def ended(self, values: list[float]) -> None:
        """Take in the epochs of a trial that has completed or was stopped."""


class MedianRule:
    """TrainingJobEarlyStoppingType Auto: a trial is stopped after an epoch in which its objective is worse than the
    median of the running averages, up to that epoch, of the trials that ended before.

    https://docs.aws.amazon.com/sagemaker/latest/dg/automatic-model-tuning-early-stopping.html
    """

    def __init__(self, objective_type: str):
        self._maximize = objective_type == "Maximize"
        self._averages: list[list[float]] = []

    def stops(self, _number: int, values: list[float]) -> bool:
        epoch = len(values) - 1
        averages = [previous[epoch] for previous in self._averages if len(previous) > epoch]
        if not averages:
            return False
        median = statistics.median(averages)
        return values[-1] < median if self._maximize else values[-1] > median

    def finished(self, _epochs: int) -> bool:
        return False

    def ended(self, values: list[float]) -> None:
        sums = itertools.accumulate(values)
        self._averages.append([total / count for count, total in enumerate(sums, 1)])


class Hyperband:
    """The strategy of that name: trials in brackets, of which only the best third goes on at each rung.

    Li et al., JMLR 2018, run asynchronously, as Optuna does it: a trial never waits for others at a rung. No trial is
    stopped before MinResource epochs; one that goes on for more than MaxResource is stopped there.
    https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_HyperbandStrategyConfig.html
    """

    def __init__(self, search: Search, max_resource: int, static: Mapping[str, str]):
        self._search = search
        self._max_resource = max_resource
        planned = epochs_of(static)
        # A trial that plans no more than MaxResource epochs is left to end by itself: it still has to save its model.
        self._stops_at_most = planned is None or planned > max_resource

    def stops(self, number: int, values: list[float]) -> bool:
        epoch = len(values)
        if epoch >= self._max_resource:
            return self._stops_at_most
        return self._search.worse_than_its_bracket(number, epoch, values[-1])

    def finished(self, epochs: int) -> bool:
        return epochs >= self._max_resource

    def ended(self, values: list[float]) -> None:
        """The search was told already."""


def resources(config: Mapping[str, Any], static: Mapping[str, str]) -> tuple[int, int]:
    """The MinResource and MaxResource of a Hyperband job. Raises RangeError."""
    given = config.get("StrategyConfig", {}).get("HyperbandStrategyConfig", {})
    most = given.get("MaxResource", epochs_of(static))
    if most is None:
        raise RangeError(
            "Strategy Hyperband needs HyperbandStrategyConfig.MaxResource, or one of the static hyperparameters "
            f"{', '.join(EPOCHS)} as a whole number."
        )
    least = given.get("MinResource", 1)
    if not least <= most <= MOST_EPOCHS:
        raise RangeError(
            f"HyperbandStrategyConfig has MinResource {least} and MaxResource {most}: MinResource must be at most "
            f"MaxResource, and that at most {MOST_EPOCHS}."
        )
    return least, most


def epochs_of(static: Mapping[str, str]) -> int | None:
    for name in EPOCHS:
        value = static.get(name, "").strip('"')
        if value.isdecimal() and int(value) > 0:
            return int(value)
    return None


def rule_of(config: Mapping[str, Any], static: Mapping[str, str], search: Search) -> StoppingRule | None:
    """The rule of a HyperParameterTuningJobConfig, None if every trial runs to its end. Raises RangeError."""
    early, hyperband = config.get("TrainingJobEarlyStoppingType", "Off"), config["Strategy"] == "Hyperband"
    if "StrategyConfig" in config and not hyperband:
        raise RangeError("StrategyConfig can only be given with strategy Hyperband.")
    if hyperband:
        if early == "Auto":
            raise RangeError("TrainingJobEarlyStoppingType must be Off with strategy Hyperband, which stops by itself.")
        return Hyperband(search, resources(config, static)[1], static)
    return MedianRule(config["HyperParameterTuningJobObjective"]["Type"]) if early == "Auto" else None
