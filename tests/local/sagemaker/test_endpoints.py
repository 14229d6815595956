"""Endpoints from the model archive to the answer: the image `tiny` runs a server of the tests' own."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from localcloud.sagemaker.errors import ServiceError
from localcloud.sagemaker.runtime import ModelError
from localcloud.sagemaker.service import SageMaker
from tests.local.sagemaker.serving import ROLE, ask, create, settled, variant, wait_until_told
from tests.waiting import wait_for


def wait_for_another(sagemaker: SageMaker, pid: int) -> None:
    """Wait until a server with another process id answers."""

    def another() -> bool:
        try:
            return ask(sagemaker)["pid"] != pid
        except ModelError:
            return False

    wait_for(another)


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_an_endpoint_serves_its_model_archive(sagemaker, outside, make_config):
    endpoint = create(sagemaker, make_config(sagemaker, "first"))

    assert endpoint["EndpointStatus"] == "InService"
    assert endpoint["ProductionVariants"][0]["CurrentInstanceCount"] == 1
    answer = sagemaker.invoke_endpoint(
        "kelp",
        b"x" * 1000,
        {"Content-Type": "image/png", "accept": "application/json", "X-Amzn-SageMaker-Custom-Attributes": "sleep=0"},
    )
    content = json.loads(answer.body)
    assert answer.status == 200
    assert answer.headers == {
        "Content-Type": "application/json; from=server",
        "x-Amzn-Invoked-Production-Variant": "AllTraffic",
        "X-Amzn-SageMaker-Custom-Attributes": "seen",
    }
    assert content["size"] == 1000
    assert content["headers"]["content-type"] == "image/png"
    assert content["headers"]["accept"] == "application/json"
    assert content["environment"]["FROM_MODEL"] == "first"
    assert content["environment"]["AWS_ROLE_FOR_TEST"] == ROLE
    assert ("s3", ROLE) in outside.identities
    wait_until_told(outside, "CREATING", "IN_SERVICE")


def test_the_servers_lines_are_in_the_endpoints_log(sagemaker, outside, make_config):
    create(sagemaker, make_config(sagemaker, "first"))
    sagemaker.close()
    logs = outside.client("logs", None)
    group = "/aws/sagemaker/Endpoints/kelp"
    (stream,) = logs.describe_log_streams(logGroupName=group)["logStreams"]
    events = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
    assert stream["logStreamName"].startswith("AllTraffic/i-")
    assert "server first starts" in [event["message"] for event in events]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"crashes": True}, "did not pass the ping health check. Please check CloudWatch logs for this endpoint."),
        ({"image": "123.dkr.ecr.x.amazonaws.com/unheard-of:1"}, "knows these repositories for serving: tiny"),
    ],
)
def test_what_does_not_start_fails_the_endpoint(sagemaker, outside, make_config, members, reason):
    endpoint = create(sagemaker, make_config(sagemaker, "bad", **members))
    assert endpoint["EndpointStatus"] == "Failed"
    assert reason in endpoint["FailureReason"]
    wait_until_told(outside, "CREATING", "FAILED")
    with pytest.raises(ServiceError, match=r"Endpoint kelp of account 123456789012 not found\."):
        ask(sagemaker)
    sagemaker.call("DeleteEndpoint", {"EndpointName": "kelp"})


def test_a_server_that_is_never_healthy_fails_at_the_time_out(sagemaker, make_config, monkeypatch):
    monkeypatch.setattr("localcloud.sagemaker.deployments.DEFAULT_STARTUP_TIMEOUT_SECONDS", 1)
    endpoint = create(sagemaker, make_config(sagemaker, "ill", healthy=False))
    assert endpoint["FailureReason"] == (
        "The primary container for production variant AllTraffic did not pass the ping health check. "
        "Please check CloudWatch logs for this endpoint."
    )


def test_model_data_that_is_no_archive_fails_the_endpoint(sagemaker, outside, make_config):
    make_config(sagemaker, "first")
    outside.put("first/model.tar.gz", b"no archive")
    endpoint = create(sagemaker, "first")
    assert endpoint["FailureReason"].startswith('Failed to extract model data archive from URL "s3://the-bucket/first/')


def test_model_data_that_has_gone_fails_the_endpoint(sagemaker, outside, make_config):
    make_config(sagemaker, "first")
    outside.s3.delete_object(Bucket="the-bucket", Key="first/model.tar.gz")
    endpoint = create(sagemaker, "first")
    assert endpoint["FailureReason"].startswith('Failed to download model data from URL "s3://the-bucket/first/')


def test_a_crashed_server_is_started_again(sagemaker, make_config):
    create(sagemaker, make_config(sagemaker, "first"))
    first = ask(sagemaker)["pid"]
    with pytest.raises(ServiceError, match="the model process exited") as caught:
        ask(sagemaker, "exit=3")
    assert caught.value.code == "ModelError"
    assert caught.value.members["OriginalStatusCode"] == 0
    wait_for_another(sagemaker, first)
    assert sagemaker.call("DescribeEndpoint", {"EndpointName": "kelp"})["EndpointStatus"] == "InService"


def test_a_server_that_stays_unhealthy_is_replaced(sagemaker, make_config, monkeypatch):
    monkeypatch.setattr("localcloud.sagemaker.servers.PING_INTERVAL_SECONDS", 0.1)
    monkeypatch.setattr("localcloud.sagemaker.servers.UNHEALTHY_SECONDS", 0.5)
    create(sagemaker, make_config(sagemaker, "first"))
    first = ask(sagemaker, "ill=1")["pid"]
    wait_for_another(sagemaker, first)
    assert not runs(first)


@pytest.mark.parametrize(("status", "kind"), [(400, "client"), (415, "client"), (500, "server"), (503, "server")])
def test_a_containers_error_is_a_model_error(sagemaker, make_config, status, kind):
    create(sagemaker, make_config(sagemaker, "first"))
    with pytest.raises(ServiceError) as caught:
        ask(sagemaker, f"status={status}")
    error = caught.value
    assert (error.code, error.http_status) == ("ModelError", 424)
    assert error.message.startswith(f'Received {kind} error ({status}) from primary with message "{{"name": "first"')
    assert error.message.endswith("group=/aws/sagemaker/Endpoints/kelp in account 123456789012 for more information.")
    assert error.members["OriginalStatusCode"] == status
    assert json.loads(error.members["OriginalMessage"])["name"] == "first"
    assert error.members["LogStreamArn"].endswith(":log-group:/aws/sagemaker/Endpoints/kelp")


def test_an_answer_that_does_not_come_is_a_model_error(sagemaker, make_config, monkeypatch):
    monkeypatch.setattr("localcloud.sagemaker.servers.INVOCATION_TIMEOUT_SECONDS", 0.3)
    create(sagemaker, make_config(sagemaker, "first"))
    with pytest.raises(ServiceError, match="Your invocation timed out while waiting for a response from container"):
        ask(sagemaker, "sleep=2")


def test_a_body_that_is_too_long_reaches_no_container(sagemaker, make_config):
    create(sagemaker, make_config(sagemaker, "first"))
    assert ask(sagemaker, body=b"x" * 6_291_456)["size"] == 6_291_456
    with pytest.raises(ServiceError, match="Member must have length less than or equal to 6291456") as caught:
        ask(sagemaker, body=b"x" * 6_291_457)
    assert (caught.value.code, caught.value.http_status) == ("ValidationError", 400)


def test_instances_share_the_requests(sagemaker, make_config):
    make_config(sagemaker, "first")
    config = {"EndpointConfigName": "two", "ProductionVariants": [variant("first", InitialInstanceCount=2)]}
    sagemaker.call("CreateEndpointConfig", config)
    create(sagemaker, "two")
    pids: list[int] = []
    threads = [threading.Thread(target=lambda: pids.append(ask(sagemaker, "sleep=2")["pid"])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(pids.count(pid) for pid in set(pids)) == [2, 2]


def test_endpoints_in_service_start_again_with_the_service(start_service, outside, make_config):
    service = start_service()
    create(service, make_config(service, "first"))
    pid = ask(service)["pid"]
    service.close()
    outside.s3.delete_object(Bucket="the-bucket", Key="first/model.tar.gz")

    again = start_service()
    assert settled(again)["EndpointStatus"] == "InService"
    answer = ask(again)
    assert answer["name"] == "first"
    assert answer["pid"] != pid
    again.call("DeleteEndpoint", {"EndpointName": "kelp"})


def test_closing_ends_servers_in_service_and_servers_that_start(sagemaker, make_config):
    create(sagemaker, make_config(sagemaker, "first"))
    pid = ask(sagemaker)["pid"]
    make_config(sagemaker, "slow", starts_in_seconds=600)
    sagemaker.call("CreateEndpoint", {"EndpointName": "weed", "EndpointConfigName": "slow"})
    wait_for(lambda: list((sagemaker.account.home / "endpoints" / "weed").glob("*/i-*")))
    sagemaker.close()
    assert not runs(pid)
    assert sagemaker.call("DescribeEndpoint", {"EndpointName": "weed"})["EndpointStatus"] == "Creating"


def test_no_server_outlives_a_killed_service(tmp_path):
    script = Path(__file__).with_name("killed_service.py")
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as service:
        assert service.stdout is not None
        port = int(service.stdout.readline())
        assert service.stdout.readline() == "InService\n"
        assert listens(port)
        service.kill()
    wait_for(lambda: not listens(port))


def test_a_deleted_endpoint_leaves_nothing(sagemaker, make_config):
    create(sagemaker, make_config(sagemaker, "first"))
    pid = ask(sagemaker)["pid"]
    sagemaker.call("DeleteEndpoint", {"EndpointName": "kelp"})
    wait_for(lambda: not sagemaker.call("ListEndpoints", {})["Endpoints"])
    assert not runs(pid)
    assert not (sagemaker.account.home / "endpoints" / "kelp").exists()
    with pytest.raises(
        ServiceError, match='Could not find endpoint "arn:aws:sagemaker:us-east-1:123456789012:endpoint'
    ):
        sagemaker.call("DescribeEndpoint", {"EndpointName": "kelp"})


def test_an_endpoint_that_is_changing_cannot_be_changed(sagemaker, make_config):
    make_config(sagemaker, "first", starts_in_seconds=3)
    sagemaker.call("CreateEndpoint", {"EndpointName": "kelp", "EndpointConfigName": "first"})
    for action, parameters in (
        ("UpdateEndpoint", {"EndpointName": "kelp", "EndpointConfigName": "first"}),
        ("DeleteEndpoint", {"EndpointName": "kelp"}),
    ):
        with pytest.raises(ServiceError, match="Cannot update in-progress endpoint"):
            sagemaker.call(action, parameters)
    with pytest.raises(ServiceError, match="Cannot create already existing endpoint"):
        sagemaker.call("CreateEndpoint", {"EndpointName": "kelp", "EndpointConfigName": "first"})
    assert settled(sagemaker)["EndpointStatus"] == "InService"


def test_endpoints_are_listed_by_name_and_status(sagemaker, make_config):
    make_config(sagemaker, "first")
    make_config(sagemaker, "bad", crashes=True)
    create(sagemaker, "first", "kelp-1")
    create(sagemaker, "bad", "kelp-2")
    create(sagemaker, "first", "weed")

    def names(**parameters: Any) -> list[str]:
        return [endpoint["EndpointName"] for endpoint in sagemaker.call("ListEndpoints", parameters)["Endpoints"]]

    assert names() == ["weed", "kelp-2", "kelp-1"]
    assert names(NameContains="kelp", SortBy="Name", SortOrder="Ascending") == ["kelp-1", "kelp-2"]
    assert names(StatusEquals="InService", SortOrder="Ascending") == ["kelp-1", "weed"]
    first = sagemaker.call("ListEndpoints", {"MaxResults": 2})
    assert names(MaxResults=2, NextToken=first["NextToken"]) == ["kelp-1"]


def test_invocations_are_metrics_of_the_endpoint(sagemaker, outside, make_config, monkeypatch):
    monkeypatch.setattr("localcloud.sagemaker.invocation_metrics.PUT_SECONDS", 0.3)
    create(sagemaker, make_config(sagemaker, "first"))
    for status in (200, 200, 400, 500):
        with contextlib.suppress(ModelError):
            ask(sagemaker, f"status={status} sleep=0.01")
    cloudwatch = outside.client("cloudwatch", None)
    whole = {"EndpointName": "kelp", "VariantName": "AllTraffic"}
    fleet = {**whole, "EndpointConfigName": "first"}

    def statistics(metric: str, **dimensions: str) -> dict[str, Any]:
        now = datetime.now(UTC)
        points = cloudwatch.get_metric_statistics(
            Namespace="AWS/SageMaker",
            MetricName=metric,
            Dimensions=[{"Name": name, "Value": value} for name, value in dimensions.items()],
            StartTime=now - timedelta(minutes=10),
            EndTime=now + timedelta(minutes=10),
            Period=3600,
            Statistics=["Average", "Sum", "Minimum", "SampleCount"],
        )["Datapoints"]
        return points[0] if points else {}

    wait_for(lambda: statistics("Invocations", **fleet).get("Sum", 0) == 4)
    assert statistics("Invocation4XXErrors", **whole)["Average"] == 0.25
    assert statistics("Invocation5XXErrors", **whole)["Average"] == 0.25
    assert statistics("InvocationModelErrors", **fleet)["Sum"] == 2
    assert statistics("ModelLatency", **fleet)["Minimum"] >= 10_000
    assert statistics("OverheadLatency", **fleet)["SampleCount"] == 4
