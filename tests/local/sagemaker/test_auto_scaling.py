"""Auto scaling of production variants: what is registered, what is refused, and that a load really adds servers."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from localcloud.sagemaker import auto_scaling
from localcloud.sagemaker.errors import ServiceError
from tests.local.sagemaker.serving import create, settled, variant

VARIANT = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/kelp/variant/AllTraffic",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}
TARGET = {**VARIANT, "MinCapacity": 1, "MaxCapacity": 3}
METRIC = {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"}
POLICY = {
    **VARIANT,
    "PolicyName": "invocations",
    "PolicyType": "TargetTrackingScaling",
    "TargetTrackingScalingPolicyConfiguration": {"TargetValue": 100.0, "PredefinedMetricSpecification": METRIC},
}


@pytest.fixture
def endpoint(sagemaker, make_config):
    create(sagemaker, make_config(sagemaker, "first"))
    return sagemaker


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(auto_scaling, "LOOK_SECONDS", 0.05)


def load(outside: Any, per_minute: float) -> None:
    """Some minutes of requests until now, as the endpoint's metrics have them."""
    minute = datetime.now(UTC).replace(second=1)
    outside.client("cloudwatch", None).put_metric_data(
        Namespace="AWS/SageMaker",
        MetricData=[
            {
                "MetricName": "InvocationsPerInstance",
                "Dimensions": [
                    {"Name": "EndpointName", "Value": "kelp"},
                    {"Name": "VariantName", "Value": "AllTraffic"},
                ],
                "Timestamp": minute - timedelta(minutes=ago),
                "Value": per_minute,
            }
            for ago in range(-1, 5)
        ],
    )


def update(sagemaker: Any, config: str) -> dict[str, Any]:
    sagemaker.call("UpdateEndpoint", {"EndpointName": "kelp", "EndpointConfigName": config})
    return settled(sagemaker)


def servers(sagemaker: Any, number: int) -> bool:
    return settled(sagemaker)["ProductionVariants"][0]["CurrentInstanceCount"] == number


def refused(sagemaker: Any, action: str, request: dict[str, Any], said: str) -> None:
    with pytest.raises(ServiceError, match=said):
        sagemaker.auto_scaling.call(action, request)


def test_a_target_and_its_policy_are_there_until_they_are_let_go(endpoint):
    scaling = endpoint.auto_scaling
    arn = scaling.call("RegisterScalableTarget", TARGET)["ScalableTargetARN"]
    assert scaling.call("RegisterScalableTarget", {**VARIANT, "MaxCapacity": 2})["ScalableTargetARN"] == arn
    scaling.call("PutScalingPolicy", POLICY)
    (target,) = scaling.call("DescribeScalableTargets", {"ServiceNamespace": "sagemaker"})["ScalableTargets"]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (1, 2)
    (policy,) = scaling.call("DescribeScalingPolicies", {"ServiceNamespace": "sagemaker"})["ScalingPolicies"]
    assert policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 100
    assert policy["Alarms"] == []
    scaling.call("DeleteScalingPolicy", {**VARIANT, "PolicyName": "invocations"})
    assert scaling.call("DescribeScalingPolicies", {"ServiceNamespace": "sagemaker"})["ScalingPolicies"] == []
    scaling.call("PutScalingPolicy", POLICY)
    scaling.call("DeregisterScalableTarget", VARIANT)
    assert scaling.call("DescribeScalableTargets", {"ServiceNamespace": "sagemaker"})["ScalableTargets"] == []
    assert scaling.call("DescribeScalingPolicies", {"ServiceNamespace": "sagemaker"})["ScalingPolicies"] == []
    for action in ("DeregisterScalableTarget", "PutScalingPolicy", "DeleteScalingPolicy"):
        request = {"DeregisterScalableTarget": VARIANT, "PutScalingPolicy": POLICY}
        refused(endpoint, action, request.get(action, {**VARIANT, "PolicyName": "p"}), "ObjectNotFoundException")


@pytest.mark.parametrize(
    ("action", "request_", "said"),
    [
        ("RegisterScalableTarget", VARIANT, "MinCapacity and MaxCapacity are needed"),
        ("RegisterScalableTarget", {**TARGET, "MinCapacity": 4}, "at most MaxCapacity"),
        ("RegisterScalableTarget", {**TARGET, "MinCapacity": 0}, "at least 1"),
        (
            "RegisterScalableTarget",
            {**TARGET, "ResourceId": "endpoint/none/variant/AllTraffic"},
            "no production variant",
        ),
        ("RegisterScalableTarget", {**TARGET, "ServiceNamespace": "ecs"}, "UnsupportedOperation.*ServiceNamespace"),
        ("RegisterScalableTarget", {**TARGET, "RoleARN": "arn:aws:iam::1:role/r"}, "UnsupportedOperation.*RoleARN"),
        ("RegisterScalableTarget", {**TARGET, "MinCapacity": "1"}, "SerializationException"),
        ("PutScalingPolicy", {**POLICY, "PolicyType": "StepScaling"}, "UnsupportedOperation.*PolicyType"),
        ("PutScheduledAction", {}, "UnsupportedOperation.*PutScheduledAction"),
        ("MakeCoffee", {}, "UnknownOperationException"),
    ],
)
def test_what_it_does_not_do_is_refused_by_name(endpoint, action, request_, said):
    refused(endpoint, action, request_, said)


@pytest.mark.usefixtures("soon")
def test_a_load_adds_servers_that_answer_and_the_least_and_most_hold(endpoint, outside, until):
    endpoint.auto_scaling.call("RegisterScalableTarget", TARGET)
    endpoint.auto_scaling.call("PutScalingPolicy", POLICY)
    load(outside, 170)
    until(lambda: servers(endpoint, 2))
    endpoint.auto_scaling.call("RegisterScalableTarget", {**VARIANT, "MinCapacity": 3})
    until(lambda: servers(endpoint, 3))
    endpoint.auto_scaling.call("DeregisterScalableTarget", VARIANT)
    load(outside, 1000)
    time.sleep(0.2)
    assert servers(endpoint, 3)


@pytest.mark.usefixtures("soon")
def test_targets_are_scaled_again_after_a_restart(endpoint, outside, start_service, until):
    endpoint.auto_scaling.call("RegisterScalableTarget", TARGET)
    endpoint.auto_scaling.call("PutScalingPolicy", POLICY)
    endpoint.close()
    restarted = start_service()
    settled(restarted)
    load(outside, 170)
    until(lambda: servers(restarted, 2))


def test_a_variant_keeps_its_instance_type_while_it_is_scaled(endpoint, make_config):
    make_config(endpoint, "second")
    larger = {**variant("second"), "InstanceType": "ml.m5.4xlarge"}
    endpoint.call("CreateEndpointConfig", {"EndpointConfigName": "larger", "ProductionVariants": [larger]})
    endpoint.auto_scaling.call("RegisterScalableTarget", TARGET)
    with pytest.raises(ServiceError, match="deregister it before its instance type changes"):
        update(endpoint, "larger")
    assert update(endpoint, "second")["EndpointConfigName"] == "second"
    endpoint.auto_scaling.call("DeregisterScalableTarget", VARIANT)
    assert update(endpoint, "larger")["EndpointConfigName"] == "larger"


def test_an_endpoint_that_is_deleted_is_released(endpoint, until):
    endpoint.auto_scaling.call("RegisterScalableTarget", TARGET)
    endpoint.call("DeleteEndpoint", {"EndpointName": "kelp"})
    until(lambda: not endpoint.auto_scaling.holds("kelp", "AllTraffic"))
