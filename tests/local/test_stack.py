"""The product's own template on a local cloud: created, updated, deleted, and deployed again."""

import hashlib
import re
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from localcloud import LocalCloud, deploy

TEMPLATE = Path(__file__).parents[2] / "template.yaml"
PLATFORM = {
    "FunctionRuntime": f"python{sys.version_info.major}.{sys.version_info.minor}",
    "FunctionArchitecture": "x86_64",
}


@pytest.fixture(scope="module")
def own_cloud(tmp_path_factory) -> Iterator[boto3.Session]:
    """A cloud without other stacks."""
    started = LocalCloud(tmp_path_factory.mktemp("stack"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started.start(port)
    yield started.session()
    started.stop()


def delete(session: boto3.Session, until: Callable[..., Any]) -> None:
    cloudformation = session.client("cloudformation")
    stack_id = cloudformation.describe_stacks(StackName="kelpie")["Stacks"][0]["StackId"]
    cloudformation.delete_stack(StackName="kelpie")

    def status() -> str:
        return cloudformation.describe_stacks(StackName=stack_id)["Stacks"][0]["StackStatus"]

    until(lambda: not status().endswith("_IN_PROGRESS"))
    assert status() == "DELETE_COMPLETE"


def buckets(session: boto3.Session) -> list[str]:
    return [bucket["Name"] for bucket in session.client("s3").list_buckets()["Buckets"]]


def put_two_versions(session: boto3.Session, bucket: str) -> None:
    for body in (b"old", b"new"):
        session.client("s3").put_object(Bucket=bucket, Key="runs/a/plan.json", Body=body)


@pytest.mark.slow
def test_an_execution_runs_the_versions_that_its_definition_names(own_cloud, until):
    outputs = deploy(own_cloud, TEMPLATE, "kelpie", PLATFORM)
    states, functions = own_cloud.client("stepfunctions"), own_cloud.client("lambda")
    definition = states.describe_state_machine(stateMachineArn=outputs["StateMachineArn"])["definition"]
    versions = re.findall(r"function:kelpie-([a-z-]+):(\d+)", definition)
    assert {name for name, _version in versions} >= {"choose-hyperparameters", "write-report", "verify-endpoint"}
    assert functions.get_alias(FunctionName="kelpie-write-report", Name="live")["FunctionVersion"] == "1"

    arn = states.start_execution(stateMachineArn=outputs["StateMachineArn"], input="{}")["executionArn"]
    until(lambda: states.describe_execution(executionArn=arn)["status"] != "RUNNING")
    assert states.describe_execution(executionArn=arn)["error"] == "InvalidInput"
    run = hashlib.sha256(arn.encode()).hexdigest()[:12]
    objects = own_cloud.client("s3").list_objects_v2(Bucket=outputs["Bucket"], Prefix=f"runs/{run}/report/")
    assert objects["KeyCount"] == 2
    delete(own_cloud, until)


@pytest.mark.slow
def test_the_bucket_outlives_the_stack_or_goes_with_it_and_a_deploy_works_again(own_cloud, until):
    kept = deploy(own_cloud, TEMPLATE, "kelpie", PLATFORM)["Bucket"]
    put_two_versions(own_cloud, kept)
    delete(own_cloud, until)
    assert kept in buckets(own_cloud)

    second = deploy(own_cloud, TEMPLATE, "kelpie", PLATFORM)["Bucket"]
    put_two_versions(own_cloud, second)
    assert deploy(own_cloud, TEMPLATE, "kelpie", {"OnStackDeletion": "Delete"})["Bucket"] == second
    delete(own_cloud, until)
    assert kept in buckets(own_cloud)
    assert second not in buckets(own_cloud)
