"""One course for all clients: train, tune where there is a tuner, deploy, invoke, delete; and the same outcome."""

import json
import subprocess
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from localcloud.containers.environments import Environments
from tests.conformance.clients import aws_cli, boto3_waiters

ROOT = Path(__file__).parents[2]


def check(target, outcome):
    """What AWS would answer, whatever the client."""
    assert outcome["training"] == "Completed"
    assert outcome["artifact"] == f"{target.output}/{target.name}/output/model.tar.gz"
    assert outcome["metrics"] == {"accuracy": pytest.approx(0.75)}
    assert outcome["endpoint"] == "InService"
    assert outcome["answer"]["received"] == target.question
    assert outcome["answer"]["model"] == {"names": ["a.txt", "b.txt"], "words": "two words"}
    sagemaker = target.session.client("sagemaker")
    for describe, member in (
        (sagemaker.describe_endpoint, "EndpointName"),
        (sagemaker.describe_endpoint_config, "EndpointConfigName"),
        (sagemaker.describe_model, "ModelName"),
    ):
        with pytest.raises(ClientError, match="Could not find"):
            describe(**{member: target.name})


@pytest.mark.slow
@pytest.mark.parametrize("client", [boto3_waiters, aws_cli], ids=["boto3", "aws-cli"])
def test_by(client, target):
    check(target, client.run(target))


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v2", "v3"])
def test_by_the_sagemaker_sdk(version, target, environment_of, tmp_path):
    environment = Environments().alone(f"sdk-{version}", ROOT / f"requirements-sdk-{version}.txt", print)
    document = tmp_path / "target.json"
    document.write_text(target.document())
    client = Path(__file__).with_name("clients") / f"sdk_{version}.py"
    done = subprocess.run(
        [environment.python, client, document],
        cwd=tmp_path,
        env=environment_of(target),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    outcome = json.loads(done.stdout.splitlines()[-1])
    check(target, outcome)
    tuned = target.session.client("sagemaker").describe_hyper_parameter_tuning_job(
        HyperParameterTuningJobName=f"{target.name}-t"
    )
    assert tuned["HyperParameterTuningJobStatus"] == "Completed"
    assert outcome["best"] == tuned["BestTrainingJob"]["TrainingJobName"]
