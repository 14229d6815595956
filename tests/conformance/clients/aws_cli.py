"""Train, deploy, invoke and delete by the AWS CLI."""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.conformance.requests import Target, endpoint_config, model, training_job


def run(target: Target) -> dict[str, Any]:
    def aws(*words: str, **request: Any) -> Any:
        options = ["--cli-input-json", json.dumps(request)] if request else []
        done = subprocess.run(
            [target.aws_cli, *words, *options, "--output", "json"],
            env={**os.environ, **target.environment},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"aws {' '.join(words)}: {done.stderr.strip()}")
        return json.loads(done.stdout) if done.stdout.strip() else None

    name = target.name
    aws("sagemaker", "create-training-job", **training_job(target))
    # The waiter looks again after two minutes: it is asked once there is nothing to wait for.
    described = _when(
        lambda: aws("sagemaker", "describe-training-job", "--training-job-name", name), "TrainingJobStatus"
    )
    aws("sagemaker", "wait", "training-job-completed-or-stopped", "--training-job-name", name)
    artifact = described["ModelArtifacts"]["S3ModelArtifacts"]
    aws("sagemaker", "create-model", **model(target, artifact))
    aws("sagemaker", "create-endpoint-config", **endpoint_config(target))
    aws("sagemaker", "create-endpoint", "--endpoint-name", name, "--endpoint-config-name", name)
    endpoint = _when(lambda: aws("sagemaker", "describe-endpoint", "--endpoint-name", name), "EndpointStatus")
    aws("sagemaker", "wait", "endpoint-in-service", "--endpoint-name", name)
    with tempfile.TemporaryDirectory() as folder:
        question, answer = Path(folder, "question"), Path(folder, "answer")
        question.write_text(target.question)
        words = ("--endpoint-name", name, "--body", f"fileb://{question}", "--content-type", "text/plain", str(answer))
        aws("sagemaker-runtime", "invoke-endpoint", *words)
        said = json.loads(answer.read_text())
    aws("sagemaker", "delete-endpoint", "--endpoint-name", name)
    aws("sagemaker", "wait", "endpoint-deleted", "--endpoint-name", name)
    aws("sagemaker", "delete-endpoint-config", "--endpoint-config-name", name)
    aws("sagemaker", "delete-model", "--model-name", name)
    return {
        "training": described["TrainingJobStatus"],
        "artifact": artifact,
        "metrics": {metric["MetricName"]: metric["Value"] for metric in described["FinalMetricDataList"]},
        "endpoint": endpoint["EndpointStatus"],
        "answer": said,
    }


def _when(describe: Any, status: str) -> dict[str, Any]:
    while (described := describe())[status] in ("InProgress", "Creating"):
        time.sleep(1)
    return described
