"""Tuning jobs that begin with what others have found."""

import copy
import functools
from typing import Any

import pytest

from localcloud.sagemaker.errors import ServiceError
from tests.local.sagemaker.tuning import NAME, describe, ended, request, run


def warm(parent: dict[str, Any], name: str, kind: str = "IdenticalDataAndAlgorithm") -> dict[str, Any]:
    """The parent's request for another job, which begins with what it found."""
    warm_start = {"ParentHyperParameterTuningJobs": [{"HyperParameterTuningJobName": NAME}], "WarmStartType": kind}
    return {**copy.deepcopy(parent), "HyperParameterTuningJobName": name, "WarmStartConfig": warm_start}


def test_a_warm_start_knows_what_the_parents_found(sagemaker):
    parent = request(trials=6, parallel=3, Strategy="Bayesian")
    run(sagemaker, parent)
    found = describe(sagemaker)["BestTrainingJob"]
    child = warm(parent, "warm")
    child["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxNumberOfTrainingJobs"] = 1
    sagemaker.call("CreateHyperParameterTuningJob", child)
    job = ended(sagemaker, name="warm")
    assert job["HyperParameterTuningJobStatus"] == "Completed"
    assert job["WarmStartConfig"] == child["WarmStartConfig"]
    values = [one["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] for one in (found, job["BestTrainingJob"])]
    best = job["OverallBestTrainingJob"]
    assert best["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] == max(values)
    assert best["TuningJobName"] == (NAME if values[0] >= values[1] else "warm")


def test_a_warm_start_that_does_not_fit_its_parent_is_refused(sagemaker):
    parent = request(trials=1)
    run(sagemaker, parent)
    for path, value, message in (
        ("TrainingJobDefinition.StaticHyperParameters.more", "1", "has 5 static and tunable hyperparameters together"),
        ("TrainingJobDefinition.AlgorithmSpecification.TrainingImage", "tiny:2", "its training image is 123"),
        (
            "HyperParameterTuningJobConfig.HyperParameterTuningJobObjective.Type",
            "Minimize",
            "its objective is Maximize",
        ),
    ):
        child = warm(parent, "warm")
        *parents, last = path.split(".")
        functools.reduce(dict.__getitem__, parents, child)[last] = value
        with pytest.raises(ServiceError, match=message):
            sagemaker.call("CreateHyperParameterTuningJob", child)
    unknown = warm(parent, "warm")
    unknown["WarmStartConfig"]["ParentHyperParameterTuningJobs"][0]["HyperParameterTuningJobName"] = "none"
    with pytest.raises(ServiceError, match="can't find a tuning job with the name none"):
        sagemaker.call("CreateHyperParameterTuningJob", unknown)
