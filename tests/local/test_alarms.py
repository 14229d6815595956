"""Alarms on the metrics of an endpoint: by dimension, and until the data ends."""

import io
import json
import os
import tarfile
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud.cloud import ACCOUNT_ID, REGION
from tests.waiting import PATIENCE_SECONDS, wait_for

IMAGE = f"{ACCOUNT_ID}.dkr.ecr.{REGION}.amazonaws.com/tiny:latest"


def put_alarm(cloudwatch: Any, name: str, **dimensions: str) -> None:
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace="AWS/SageMaker",
        MetricName="Invocation5XXErrors",
        Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
        Statistic="Average",
        Period=60,
        EvaluationPeriods=1,
        Threshold=0.5,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        TreatMissingData="notBreaching",
    )


def state(cloudwatch: Any, name: str) -> str:
    return cloudwatch.describe_alarms(AlarmNames=[name])["MetricAlarms"][0]["StateValue"]


def put(cloudwatch: Any, value: float, **dimensions: str) -> None:
    datum = {"MetricName": "Invocation5XXErrors", "Value": value}
    datum["Dimensions"] = [{"Name": key, "Value": value} for key, value in dimensions.items()]
    cloudwatch.put_metric_data(Namespace="AWS/SageMaker", MetricData=[datum])


def rings_for_another(session: Any) -> bool:
    cloudwatch, name = session.client("cloudwatch"), f"alarm-{os.urandom(4).hex()}"
    put_alarm(cloudwatch, name, EndpointName=name)
    put(cloudwatch, 1, EndpointName=f"another-{name}")
    return state(cloudwatch, name) == "ALARM"


def test_an_alarm_looks_at_its_own_dimensions(session):
    assert not rings_for_another(session)
    cloudwatch = session.client("cloudwatch")
    put_alarm(cloudwatch, "own", EndpointName="own")
    put(cloudwatch, 1, EndpointName="own")
    assert state(cloudwatch, "own") == "ALARM"
    put(cloudwatch, 0, EndpointName="own")
    put(cloudwatch, 0, EndpointName="own")
    assert state(cloudwatch, "own") == "OK"


def test_upstream_looks_at_every_dimension(upstream):
    assert rings_for_another(upstream)


def archive(**files: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{name}.json")
            member.size = len(json.dumps(content))
            tar.addfile(member, io.BytesIO(json.dumps(content).encode()))
    return buffer.getvalue()


def settled(sagemaker: Any, name: str) -> dict[str, Any]:
    def endpoint() -> dict[str, Any]:
        return sagemaker.describe_endpoint(EndpointName=name)

    return wait_for(lambda: (now := endpoint())["EndpointStatus"] == "InService" and now, endpoint)


def test_the_role_of_the_model_must_be_allowed_to_describe_the_alarms(session, role_for):
    sagemaker, cloudwatch = session.client("sagemaker"), session.client("cloudwatch")
    put_alarm(cloudwatch, "unseen", EndpointName="unseen")
    role = role_for("sagemaker.amazonaws.com", [{"Effect": "Allow", "Action": "logs:*", "Resource": "*"}])
    sagemaker.create_model(ModelName="unseen", PrimaryContainer={"Image": IMAGE}, ExecutionRoleArn=role)
    variant = {"VariantName": "v", "ModelName": "unseen", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    sagemaker.create_endpoint_config(EndpointConfigName="unseen", ProductionVariants=[variant])
    with pytest.raises(ClientError, match=r"Could not describe the alarms unseen\. .* is not authorized to perform"):
        sagemaker.create_endpoint(
            EndpointName="unseen",
            EndpointConfigName="unseen",
            DeploymentConfig={
                "BlueGreenUpdatePolicy": {
                    "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}
                },
                "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "unseen"}]},
            },
        )


def test_errors_of_a_canary_ring_the_alarm_that_rolls_it_back(session, role_for):
    """The whole way: the container's errors, the metric, the alarm, the role's DescribeAlarms, the rollback."""
    sagemaker, runtime = session.client("sagemaker"), session.client("sagemaker-runtime")
    s3, cloudwatch, bucket = session.client("s3"), session.client("cloudwatch"), f"canary-{os.urandom(4).hex()}"
    role = role_for("sagemaker.amazonaws.com")
    s3.create_bucket(Bucket=bucket)
    for name in ("blue", "green"):
        s3.put_object(Bucket=bucket, Key=f"{name}.tar.gz", Body=archive(answer=name))
        container = {"Image": IMAGE, "ModelDataUrl": f"s3://{bucket}/{name}.tar.gz"}
        sagemaker.create_model(ModelName=f"canary-{name}", PrimaryContainer=container, ExecutionRoleArn=role)
        variant = {"VariantName": "v", "ModelName": f"canary-{name}", "InitialInstanceCount": 1}
        variant["InstanceType"] = "ml.m5.large"
        sagemaker.create_endpoint_config(EndpointConfigName=f"canary-{name}", ProductionVariants=[variant])
    sagemaker.create_endpoint(EndpointName="canary", EndpointConfigName="canary-blue")
    settled(sagemaker, "canary")
    put_alarm(cloudwatch, "canary-errors", EndpointName="canary", VariantName="v", EndpointConfigName="canary-green")
    routing = {
        "Type": "CANARY",
        "CanarySize": {"Type": "CAPACITY_PERCENT", "Value": 50},
        "WaitIntervalInSeconds": 600,
    }
    sagemaker.update_endpoint(
        EndpointName="canary",
        EndpointConfigName="canary-green",
        DeploymentConfig={
            "BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing},
            "AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "canary-errors"}]},
        },
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    while sagemaker.describe_endpoint(EndpointName="canary")["EndpointStatus"] != "InService":
        assert time.monotonic() < deadline
        answer = json.loads(runtime.invoke_endpoint(EndpointName="canary", Body=b"x")["Body"].read())
        if answer["model"] == "green":  # every other request while it bakes: let the next two of green fail
            for _ in range(2):
                runtime.invoke_endpoint(EndpointName="canary", Body=b"x")
                with pytest.raises(runtime.exceptions.ModelError):
                    runtime.invoke_endpoint(EndpointName="canary", Body=b"x", CustomAttributes="status=500")
        time.sleep(0.2)
    assert settled(sagemaker, "canary")["EndpointConfigName"] == "canary-blue"
    assert state(cloudwatch, "canary-errors") == "ALARM"
    sagemaker.delete_endpoint(EndpointName="canary")
