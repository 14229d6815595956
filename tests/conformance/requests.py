"""What every client is given, and the requests of those that take them as they are."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3


@dataclass(frozen=True)
class Target:
    """Where a client works: the local cloud or an account of AWS."""

    session: boto3.Session
    environment: dict[str, str]
    """All that tells a client where it works."""
    aws_cli: str
    name: str
    """Of the job, the model, the endpoint; the tuning job's is a little longer."""
    role: str
    bucket: str
    training_image: str
    serving_image: str
    instance_type: str
    source: Path
    source_archive: str
    dataset: str
    output: str
    question: str = "what was it?"
    hyperparameters: dict[str, str] = field(default_factory=lambda: {"rate": "0.25", "words": "two words"})
    metric_definitions: tuple[dict[str, str], ...] = ({"Name": "accuracy", "Regex": "accuracy=([0-9.]+)"},)

    def document(self) -> str:
        plain = {key: value for key, value in vars(self).items() if key != "session"}
        return json.dumps(plain, default=str)


def training_job(target: Target) -> dict[str, Any]:
    source = {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": target.dataset}}
    return {
        "TrainingJobName": target.name,
        "AlgorithmSpecification": {
            "TrainingImage": target.training_image,
            "TrainingInputMode": "File",
            "MetricDefinitions": list(target.metric_definitions),
        },
        "HyperParameters": {
            **target.hyperparameters,
            "sagemaker_program": '"train.py"',
            "sagemaker_submit_directory": json.dumps(target.source_archive),
        },
        "RoleArn": target.role,
        "InputDataConfig": [{"ChannelName": "dataset", "DataSource": source}],
        "OutputDataConfig": {"S3OutputPath": target.output},
        "ResourceConfig": {"InstanceType": target.instance_type, "InstanceCount": 1, "VolumeSizeInGB": 10},
        "StoppingCondition": {"MaxRuntimeInSeconds": 600},
    }


def model(target: Target, artifact: str) -> dict[str, Any]:
    container = {"Image": target.serving_image, "ModelDataUrl": artifact}
    return {"ModelName": target.name, "PrimaryContainer": container, "ExecutionRoleArn": target.role}


def endpoint_config(target: Target) -> dict[str, Any]:
    variant = {
        "VariantName": "all",
        "ModelName": target.name,
        "InitialInstanceCount": 1,
        "InstanceType": target.instance_type,
    }
    return {"EndpointConfigName": target.name, "ProductionVariants": [variant]}
