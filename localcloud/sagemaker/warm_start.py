"""Warm start: a tuning job that begins with what earlier ones, its parents, have found out.

https://docs.aws.amazon.com/sagemaker/latest/dg/automatic-model-tuning-warm-start.html
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from localcloud.sagemaker.errors import unsupported, validation_error
from localcloud.sagemaker.search import parse_ranges
from localcloud.sagemaker.training_records import ENDED

STRATEGIES = ("Bayesian", "Random")
_CONFIG, _DEFINITION = "HyperParameterTuningJobConfig", "TrainingJobDefinition"


def parent_names(warm_start: Mapping[str, Any]) -> list[str]:
    parents = warm_start.get("ParentHyperParameterTuningJobs", [])
    return [parent["HyperParameterTuningJobName"] for parent in parents]


def is_identical(warm_start: Mapping[str, Any]) -> bool:
    return warm_start.get("WarmStartType") == "IdenticalDataAndAlgorithm"


def check_parents(
    warm_start: Mapping[str, Any],
    config: Mapping[str, Any],
    definition: Mapping[str, Any],
    describe: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> None:
    """Raises ServiceError if the job that config and definition describe cannot begin with what its parents found."""
    if not all("HyperParameterTuningJobName" in p for p in warm_start.get("ParentHyperParameterTuningJobs", [])):
        raise validation_error(
            "Each of WarmStartConfig.ParentHyperParameterTuningJobs needs a HyperParameterTuningJobName"
        )
    names = parent_names(warm_start)
    if names and config["Strategy"] not in STRATEGIES:
        raise unsupported(
            f"CreateHyperParameterTuningJob: WarmStartConfig with Strategy={config['Strategy']}",
            f"what the parents found is of use to {' and '.join(STRATEGIES)} only",
        )
    for name in names:
        parent = describe({"HyperParameterTuningJobName": name})
        for reason in _hindrances(parent, warm_start, config, definition):
            raise validation_error(f"The tuning job {name} cannot be a parent for warm start: {reason}.")


def _hindrances(
    parent: Mapping[str, Any], warm_start: Mapping[str, Any], config: Mapping[str, Any], definition: Mapping[str, Any]
) -> Iterable[str]:
    if parent["HyperParameterTuningJobStatus"] not in ENDED:
        yield f"its status is {parent['HyperParameterTuningJobStatus']}, it has not ended"
    theirs, ours = (one["HyperParameterTuningJobObjective"] for one in (parent[_CONFIG], config))
    if theirs != ours:
        yield f"its objective is {theirs['Type']} {theirs['MetricName']}, not {ours['Type']} {ours['MetricName']}"
    before, now = _hyperparameters(parent[_CONFIG], parent[_DEFINITION]), _hyperparameters(config, definition)
    if before != now:
        yield f"it has {before} static and tunable hyperparameters together, this one {now}"
    if is_identical(warm_start):
        if parent[_DEFINITION].get("InputDataConfig") != definition.get("InputDataConfig"):
            yield "its input data are others, and the WarmStartType is IdenticalDataAndAlgorithm"
        images = [one["AlgorithmSpecification"].get("TrainingImage") for one in (parent[_DEFINITION], definition)]
        if images[0] != images[1]:
            yield f"its training image is {images[0]}, and the WarmStartType is IdenticalDataAndAlgorithm"


def _hyperparameters(config: Mapping[str, Any], definition: Mapping[str, Any]) -> int:
    return len(parse_ranges(config["ParameterRanges"])) + len(definition["StaticHyperParameters"])
