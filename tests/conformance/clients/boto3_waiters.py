"""Train, deploy, invoke and delete by boto3 and its waiters."""

import json
from typing import Any

from tests.conformance.requests import Target, endpoint_config, model, training_job

OFTEN = {"Delay": 1, "MaxAttempts": 1800}


def run(target: Target) -> dict[str, Any]:
    sagemaker, runtime = target.session.client("sagemaker"), target.session.client("sagemaker-runtime")
    name = target.name
    sagemaker.create_training_job(**training_job(target))
    sagemaker.get_waiter("training_job_completed_or_stopped").wait(TrainingJobName=name, WaiterConfig=OFTEN)
    described = sagemaker.describe_training_job(TrainingJobName=name)
    artifact = described["ModelArtifacts"]["S3ModelArtifacts"]
    sagemaker.create_model(**model(target, artifact))
    sagemaker.create_endpoint_config(**endpoint_config(target))
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name)
    sagemaker.get_waiter("endpoint_in_service").wait(EndpointName=name, WaiterConfig=OFTEN)
    endpoint = sagemaker.describe_endpoint(EndpointName=name)
    answer = runtime.invoke_endpoint(EndpointName=name, Body=target.question.encode(), ContentType="text/plain")
    sagemaker.delete_endpoint(EndpointName=name)
    sagemaker.get_waiter("endpoint_deleted").wait(EndpointName=name, WaiterConfig=OFTEN)
    sagemaker.delete_endpoint_config(EndpointConfigName=name)
    sagemaker.delete_model(ModelName=name)
    return {
        "training": described["TrainingJobStatus"],
        "artifact": artifact,
        "metrics": {metric["MetricName"]: metric["Value"] for metric in described["FinalMetricDataList"]},
        "endpoint": endpoint["EndpointStatus"],
        "answer": json.loads(answer["Body"].read()),
    }
