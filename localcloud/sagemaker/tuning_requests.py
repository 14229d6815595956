"""What CreateHyperParameterTuningJob may ask for, and the request of a trial that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localcloud.sagemaker.early_stopping import StoppingRule, resources, rule_of
from localcloud.sagemaker.errors import validation_error
from localcloud.sagemaker.search import STRATEGIES, RangeError, Search
from localcloud.sagemaker.validation import Support

OBJECTIVE_HYPERPARAMETER = "_tuning_objective_metric"
CONFIG = "HyperParameterTuningJobConfig"
DEFINITION = "TrainingJobDefinition"
_PASSED_ON = (  # the members of the definition that are members of CreateTrainingJob: it checks what is in them
    "AlgorithmSpecification",
    "RoleArn",
    "InputDataConfig",
    "OutputDataConfig",
    "ResourceConfig",
    "VpcConfig",
    "StoppingCondition",
    "EnableNetworkIsolation",
    "EnableInterContainerTrafficEncryption",
    "EnableManagedSpotTraining",
    "CheckpointConfig",
    "RetryStrategy",
    "Environment",
)

SUPPORT = Support(
    honoured=frozenset(
        {
            "HyperParameterTuningJobName",
            "Tags",
            "WarmStartConfig",
            f"{CONFIG}.HyperParameterTuningJobObjective",
            f"{CONFIG}.ResourceLimits.MaxNumberOfTrainingJobs",
            f"{CONFIG}.ResourceLimits.MaxParallelTrainingJobs",
            f"{CONFIG}.ResourceLimits.MaxRuntimeInSeconds",
            f"{CONFIG}.StrategyConfig.HyperbandStrategyConfig",
            f"{CONFIG}.TrainingJobEarlyStoppingType",
            f"{CONFIG}.TuningJobCompletionCriteria.TargetObjectiveMetricValue",
            f"{CONFIG}.TuningJobCompletionCriteria.BestObjectiveNotImproving",
            f"{CONFIG}.ParameterRanges.ContinuousParameterRanges",
            f"{CONFIG}.ParameterRanges.IntegerParameterRanges",
            f"{CONFIG}.ParameterRanges.CategoricalParameterRanges",
            f"{CONFIG}.RandomSeed",
            f"{DEFINITION}.DefinitionName",
            f"{DEFINITION}.StaticHyperParameters",
            *(f"{DEFINITION}.{member}" for member in _PASSED_ON),
            f"{DEFINITION}.HyperParameterTuningResourceConfig.InstanceType",
            f"{DEFINITION}.HyperParameterTuningResourceConfig.InstanceCount",
            f"{DEFINITION}.HyperParameterTuningResourceConfig.VolumeSizeInGB",
            f"{DEFINITION}.HyperParameterTuningResourceConfig.VolumeKmsKeyId",
        }
    ),
    only={
        f"{CONFIG}.Strategy": (STRATEGIES, f"there are {', '.join(STRATEGIES)}"),
        f"{CONFIG}.TuningJobCompletionCriteria.ConvergenceDetected.CompleteOnConvergence": (
            ("Disabled",),
            "AWS does not publish how it detects convergence; BestObjectiveNotImproving is supported",
        ),
    },
)


def training_job(
    definition: Mapping[str, Any], name: str, tuned: Mapping[str, str], tags: list[dict[str, str]]
) -> dict[str, Any]:
    """The CreateTrainingJob request of one trial. Each has a checkpoint folder of its own, named after it."""
    passed_on = {member: definition[member] for member in _PASSED_ON if member in definition}
    if resources := definition.get("HyperParameterTuningResourceConfig"):
        if "ResourceConfig" in definition:
            raise validation_error("Give either ResourceConfig or HyperParameterTuningResourceConfig, not both")
        passed_on["ResourceConfig"] = resources
    checkpoints = definition.get("CheckpointConfig")
    if checkpoints is not None:
        passed_on["CheckpointConfig"] = {**checkpoints, "S3Uri": f"{checkpoints['S3Uri'].rstrip('/')}/{name}"}
    return {
        "TrainingJobName": name,
        **passed_on,
        "HyperParameters": {**definition["StaticHyperParameters"], **tuned},
        "Tags": tags,
    }


def check_request(parameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], Search, StoppingRule | None]:
    """Configuration, definition (with the objective's hyperparameter), search and rule of a request.

    Raises ServiceError.
    """
    config = parameters[CONFIG]
    for required, holder, where in (
        (DEFINITION, parameters, "input"),
        ("HyperParameterTuningJobObjective", config, CONFIG),
        ("ParameterRanges", config, CONFIG),
    ):
        if required not in holder:
            raise validation_error(f"{required} is required in {where}")
    definition, objective = dict(parameters[DEFINITION]), config["HyperParameterTuningJobObjective"]
    metrics = [metric["Name"] for metric in definition["AlgorithmSpecification"].get("MetricDefinitions", [])]
    if objective["MetricName"] not in metrics:
        raise validation_error(
            f"The objective metric {objective['MetricName']!r} is not among the MetricDefinitions: {metrics}"
        )
    limits, static = config["ResourceLimits"], definition.get("StaticHyperParameters", {})
    try:
        search = Search(
            config["Strategy"],
            config["ParameterRanges"],
            objective["Type"],
            limits.get("MaxNumberOfTrainingJobs"),
            config.get("RandomSeed"),
            resources(config, static) if config["Strategy"] == "Hyperband" else None,
        )
        rule = rule_of(config, static, search)
    except RangeError as error:
        raise validation_error(str(error)) from error
    both = sorted(static.keys() & search.names)
    if both:
        raise validation_error(f"Hyperparameters are either static or have a range; these are both: {both}")
    definition["StaticHyperParameters"] = {**static, OBJECTIVE_HYPERPARAMETER: objective["MetricName"]}
    return config, definition, search, rule
