"""Requests of tuning jobs whose trials are real training jobs of a few milliseconds, in the image `tiny`."""

from typing import Any

from localcloud.sagemaker.service import SageMaker
from tests.waiting import PATIENCE_SECONDS, wait_for

ROLE = "arn:aws:iam::123456789012:role/training"
NAME = "kelp-tune"
ENDED = {"Completed", "Failed", "Stopped"}
# The objective is highest at x = 2; it is printed twice and the last value counts. One line, as AWS allows no other.
BOWL = 'import os; x = float(os.environ["SM_HP_X"]); print("objective=0.5"); print(f"objective={1 - abs(x - 2) / 10}")'


def request(script: str = BOWL, *, trials: int = 4, parallel: int = 2, **config: Any) -> dict[str, Any]:
    return {
        "HyperParameterTuningJobName": NAME,
        "HyperParameterTuningJobConfig": {
            "Strategy": "Random",
            "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "valid:objective"},
            "ResourceLimits": {"MaxNumberOfTrainingJobs": trials, "MaxParallelTrainingJobs": parallel},
            "ParameterRanges": {
                "ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "10"}],
                "CategoricalParameterRanges": [{"Name": "quoted", "Values": ['"64"', '"128"']}],
            },
            "RandomSeed": 1,
            **config,
        },
        "TrainingJobDefinition": {
            "StaticHyperParameters": {"script": script, "static": "1"},
            "AlgorithmSpecification": {
                "TrainingImage": "123.dkr.ecr.x.amazonaws.com/tiny:1",
                "TrainingInputMode": "File",
                "MetricDefinitions": [{"Name": "valid:objective", "Regex": "objective=([0-9.]+)"}],
            },
            "RoleArn": ROLE,
            "OutputDataConfig": {"S3OutputPath": "s3://the-bucket/jobs"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 10},
            "StoppingCondition": {"MaxRuntimeInSeconds": 2 * PATIENCE_SECONDS},
        },
        "Tags": [{"Key": "team", "Value": "sea"}],
    }


def run(sagemaker: SageMaker, parameters: dict[str, Any]) -> dict[str, Any]:
    sagemaker.call("CreateHyperParameterTuningJob", parameters)
    return ended(sagemaker)


def ended(sagemaker: SageMaker, name: str = NAME) -> dict[str, Any]:
    def job() -> dict[str, Any]:
        return describe(sagemaker, name)

    return wait_for(lambda: (now := job())["HyperParameterTuningJobStatus"] in ENDED and now, job)


def describe(sagemaker: SageMaker, name: str = NAME) -> dict[str, Any]:
    return sagemaker.call("DescribeHyperParameterTuningJob", {"HyperParameterTuningJobName": name})


def trials(sagemaker: SageMaker, **parameters: Any) -> list[dict[str, Any]]:
    answer = sagemaker.call(
        "ListTrainingJobsForHyperParameterTuningJob", {"HyperParameterTuningJobName": NAME, **parameters}
    )
    return answer["TrainingJobSummaries"]
