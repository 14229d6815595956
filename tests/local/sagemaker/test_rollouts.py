"""Updates of endpoints: which fleet answers while another takes its place, and what calls a rollout off."""

import threading
import time
from typing import Any

import pytest

from localcloud.sagemaker.errors import ServiceError
from localcloud.sagemaker.runtime import ModelError
from localcloud.sagemaker.service import SageMaker
from tests.local.sagemaker.serving import ROLE, ask, create, settled, variant, wait_until_told
from tests.waiting import wait_for


def test_an_update_loses_no_request(sagemaker, outside, make_config):
    create(sagemaker, make_config(sagemaker, "first"))
    make_config(sagemaker, "second", starts_in_seconds=0.5)
    answers: list[str] = []
    errors: list[BaseException] = []
    over = threading.Event()

    def keep_asking() -> None:
        while not over.is_set():
            try:
                answers.append(ask(sagemaker, "sleep=0.05")["name"])
            except ServiceError as error:
                errors.append(error)

    slow = threading.Thread(target=lambda: answers.append(ask(sagemaker, "sleep=1.2")["name"]))
    threads = [slow, *(threading.Thread(target=keep_asking) for _ in range(3))]
    for thread in threads:
        thread.start()
    sagemaker.call("UpdateEndpoint", {"EndpointName": "kelp", "EndpointConfigName": "second"})
    updating = sagemaker.call("DescribeEndpoint", {"EndpointName": "kelp"})
    endpoint = settled(sagemaker)
    wait_for(lambda: "second" in answers)
    over.set()
    for thread in threads:
        thread.join()

    assert updating["EndpointStatus"] == "Updating"
    assert updating["EndpointConfigName"] == "first"
    assert updating["PendingDeploymentSummary"]["EndpointConfigName"] == "second"
    assert endpoint["EndpointConfigName"] == "second"
    assert "PendingDeploymentSummary" not in endpoint
    assert not errors
    assert {"first", "second"} == set(answers)
    assert ask(sagemaker)["name"] == "second"
    wait_until_told(outside, "UPDATING", "IN_SERVICE")
    assert len(list((sagemaker.account.home / "endpoints" / "kelp").iterdir())) == 1


def test_an_update_that_fails_stays_silently_on_the_old_configuration(sagemaker, outside, make_config):
    create(sagemaker, make_config(sagemaker, "first"))
    make_config(sagemaker, "bad", crashes=True)
    sagemaker.call("UpdateEndpoint", {"EndpointName": "kelp", "EndpointConfigName": "bad"})
    endpoint = settled(sagemaker)
    assert endpoint["EndpointStatus"] == "InService"
    assert endpoint["EndpointConfigName"] == "first"
    assert "FailureReason" not in endpoint
    assert ask(sagemaker)["name"] == "first"
    wait_until_told(outside, "UPDATING", "ROLLING_BACK", "IN_SERVICE")


def test_an_update_that_a_stop_of_the_service_interrupts_is_dropped(start_service, make_config):
    service = start_service()
    create(service, make_config(service, "first"))
    make_config(service, "slow", starts_in_seconds=600)
    service.call("UpdateEndpoint", {"EndpointName": "kelp", "EndpointConfigName": "slow"})
    service.close()
    again = start_service()
    endpoint = settled(again)
    assert (endpoint["EndpointStatus"], endpoint["EndpointConfigName"]) == ("InService", "first")
    assert ask(again)["name"] == "first"
    assert len(list((again.account.home / "endpoints" / "kelp").iterdir())) == 1


def shift(kind: str, wait: int = 600, alarms: tuple[str, ...] = (), **routing: Any) -> dict[str, Any]:
    """A DeploymentConfig."""
    policy = {"TrafficRoutingConfiguration": {"Type": kind, "WaitIntervalInSeconds": wait, **routing}}
    rollback = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": name} for name in alarms]}} if alarms else {}
    return {"BlueGreenUpdatePolicy": policy, **rollback}


def update(sagemaker: SageMaker, config: str, **members: Any) -> None:
    sagemaker.call("UpdateEndpoint", {"EndpointName": "kelp", "EndpointConfigName": config, **members})


def baking(sagemaker: SageMaker) -> None:
    """Wait until the new fleet of an update has its first traffic."""

    def status() -> str:
        endpoint = sagemaker.call("DescribeEndpoint", {"EndpointName": "kelp"})
        (variant,) = endpoint["PendingDeploymentSummary"]["ProductionVariants"]
        return variant["VariantStatus"][0]["Status"]

    wait_for(lambda: status() == "Baking", status)


def test_a_canary_has_its_share_of_the_requests_and_then_all(sagemaker, make_config, monkeypatch):
    create(sagemaker, make_config(sagemaker, "first"))
    make_config(sagemaker, "second")
    canary = shift("CANARY", CanarySize={"Type": "CAPACITY_PERCENT", "Value": 25})
    update(sagemaker, "second", DeploymentConfig=canary)
    baking(sagemaker)
    names = [ask(sagemaker)["name"] for _ in range(20)]
    assert names.count("second") == 5
    now = time.monotonic()
    monkeypatch.setattr("localcloud.sagemaker.rollouts.monotonic", lambda: now + 1000 * (time.monotonic() - now))
    endpoint = settled(sagemaker)
    assert endpoint["EndpointConfigName"] == "second"
    assert endpoint["LastDeploymentConfig"] == canary
    assert {ask(sagemaker)["name"] for _ in range(4)} == {"second"}


def test_an_alarm_gives_all_traffic_back_to_the_old_fleet(sagemaker, outside, make_config, monkeypatch):
    monkeypatch.setattr("localcloud.sagemaker.rollouts.ALARM_POLL_SECONDS", 0.1)
    cloudwatch = outside.client("cloudwatch", None)
    for name in ("quiet", "errors"):
        cloudwatch.put_metric_alarm(
            AlarmName=name,
            Namespace="AWS/SageMaker",
            MetricName="Invocation5XXErrors",
            Statistic="Average",
            Period=60,
            EvaluationPeriods=1,
            Threshold=0.1,
            ComparisonOperator="GreaterThanThreshold",
        )
    create(sagemaker, make_config(sagemaker, "first"))
    make_config(sagemaker, "second")
    canary = shift("CANARY", alarms=("quiet", "errors"), CanarySize={"Type": "CAPACITY_PERCENT", "Value": 50})
    update(sagemaker, "second", DeploymentConfig=canary)
    baking(sagemaker)
    assert {ask(sagemaker)["name"] for _ in range(4)} == {"first", "second"}
    cloudwatch.set_alarm_state(AlarmName="errors", StateValue="ALARM", StateReason="a test")
    endpoint = settled(sagemaker)
    assert (endpoint["EndpointStatus"], endpoint["EndpointConfigName"]) == ("InService", "first")
    assert "FailureReason" not in endpoint
    assert "PendingDeploymentSummary" not in endpoint
    assert {ask(sagemaker)["name"] for _ in range(4)} == {"first"}
    wait_until_told(outside, "UPDATING", "ROLLING_BACK", "IN_SERVICE")
    assert ("cloudwatch", ROLE) in outside.identities
    assert len(list((sagemaker.account.home / "endpoints" / "kelp").iterdir())) == 1


def test_a_new_fleet_that_falls_ill_while_it_bakes_is_given_up(sagemaker, make_config, monkeypatch):
    monkeypatch.setattr("localcloud.sagemaker.rollouts.BAKING_POLL_SECONDS", 0.02)
    create(sagemaker, make_config(sagemaker, "first"))
    make_config(sagemaker, "second")
    update(sagemaker, "second", DeploymentConfig=shift("ALL_AT_ONCE"))
    baking(sagemaker)
    assert ask(sagemaker)["name"] == "second"
    with pytest.raises(ModelError, match="the model process exited"):
        ask(sagemaker, "exit=3")
    assert settled(sagemaker)["EndpointConfigName"] == "first"
    assert ask(sagemaker)["name"] == "first"


def test_alarms_that_cannot_be_read_any_more_call_a_deployment_off(sagemaker, outside, make_config, monkeypatch):
    """Whatever it is: no endpoint is left Updating for ever."""
    monkeypatch.setattr("localcloud.sagemaker.rollouts.ALARM_POLL_SECONDS", 0.1)
    outside.client("cloudwatch", None).put_metric_alarm(
        AlarmName="quiet",
        Namespace="AWS/SageMaker",
        MetricName="Invocations",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1000,
        ComparisonOperator="GreaterThanThreshold",
    )
    create(sagemaker, make_config(sagemaker, "first"))
    make_config(sagemaker, "second")
    update(sagemaker, "second", DeploymentConfig=shift("ALL_AT_ONCE", alarms=("quiet",)))
    baking(sagemaker)
    monkeypatch.setattr("localcloud.sagemaker.guardrails._states", lambda *_: {}["not expected"])
    assert settled(sagemaker)["EndpointConfigName"] == "first"
    assert ask(sagemaker)["name"] == "first"


def test_a_deployment_that_takes_too_long_is_given_up(sagemaker, make_config, monkeypatch):
    create(sagemaker, make_config(sagemaker, "first"))
    make_config(sagemaker, "second")
    monkeypatch.setattr("localcloud.sagemaker.rollouts.monotonic", lambda: time.monotonic() * 1000)  # 600 s in 0.6 s
    deployment = shift("ALL_AT_ONCE", 0)
    deployment["BlueGreenUpdatePolicy"]["MaximumExecutionTimeoutInSeconds"] = 600
    make_config(sagemaker, "slow", starts_in_seconds=1)
    update(sagemaker, "slow", DeploymentConfig=deployment)
    assert settled(sagemaker)["EndpointConfigName"] == "first"


def test_what_an_update_retains(sagemaker, make_config):
    make_config(sagemaker, "first")
    make_config(sagemaker, "second")
    config = {"EndpointConfigName": "two", "ProductionVariants": [variant("first", InitialInstanceCount=2)]}
    sagemaker.call("CreateEndpointConfig", config)
    create(sagemaker, "two")
    update(
        sagemaker,
        "second",
        RetainAllVariantProperties=True,
        ExcludeRetainedVariantProperties=[{"VariantPropertyType": "DesiredWeight"}],
        DeploymentConfig=shift("ALL_AT_ONCE", 0),
    )
    endpoint = settled(sagemaker)
    assert endpoint["EndpointConfigName"] == "second"
    assert endpoint["ProductionVariants"][0]["CurrentInstanceCount"] == 2
    update(sagemaker, "first", RetainDeploymentConfig=True)
    endpoint = settled(sagemaker)
    assert endpoint["ProductionVariants"][0]["CurrentInstanceCount"] == 1
    assert endpoint["LastDeploymentConfig"] == shift("ALL_AT_ONCE", 0)


@pytest.mark.parametrize(
    ("deployment", "message"),
    [
        (shift("ALL_AT_ONCE", alarms=("none",)), "names alarms that do not exist: none"),
        (shift("CANARY"), "CanarySize is required"),
        (
            {
                "RollingUpdatePolicy": {
                    "MaximumBatchSize": {"Type": "INSTANCE_COUNT", "Value": 1},
                    "WaitIntervalInSeconds": 0,
                }
            },
            r"the parameter DeploymentConfig\.RollingUpdatePolicy",
        ),
    ],
)
def test_deployments_that_cannot_be_are_refused(sagemaker, make_config, deployment, message):
    create(sagemaker, make_config(sagemaker, "first"))
    with pytest.raises(ServiceError, match=message):
        update(sagemaker, "first", DeploymentConfig=deployment)
    assert sagemaker.call("DescribeEndpoint", {"EndpointName": "kelp"})["EndpointStatus"] == "InService"
