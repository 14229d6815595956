"""Application Auto Scaling on the local cloud: under IAM, by boto3 and from a state machine."""

import pytest
from botocore.exceptions import ClientError

VARIANT = {
    "ServiceNamespace": "sagemaker",
    "ResourceId": "endpoint/none/variant/AllTraffic",
    "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
}
RELEASE = {"Effect": "Allow", "Action": "application-autoscaling:DeregisterScalableTarget", "Resource": "*"}


def release(**fields):
    resource = "arn:aws:states:::aws-sdk:applicationautoscaling:deregisterScalableTarget"
    state = {"Type": "Task", "Resource": resource, "Arguments": VARIANT, "End": True, **fields}
    return {"QueryLanguage": "JSONata", "StartAt": "Release", "States": {"Release": state, "Gone": {"Type": "Succeed"}}}


@pytest.mark.parametrize(
    ("condition", "error"),
    [
        ({"application-autoscaling:service-namespace": "sagemaker"}, "ObjectNotFoundException"),
        ({"application-autoscaling:service-namespace": "ecs"}, "ApplicationAutoScalingException"),
    ],
)
def test_the_state_machines_role_decides_by_namespace(machines, condition, error):
    ended = machines.run(release(), statements=[{**RELEASE, "Condition": {"StringEquals": condition}}])
    assert (ended["status"], ended["error"]) == ("FAILED", f"ApplicationAutoScaling.{error}")


def test_a_target_that_is_not_there_can_be_caught(machines):
    catch = {"ErrorEquals": ["ApplicationAutoScaling.ObjectNotFoundException"], "Next": "Gone"}
    assert machines.run(release(Catch=[catch]))["status"] == "SUCCEEDED"


def test_boto3_gets_the_errors_and_pages_of_the_service(session):
    scaling = session.client("application-autoscaling")
    with pytest.raises(scaling.exceptions.ObjectNotFoundException):
        scaling.deregister_scalable_target(**VARIANT)
    with pytest.raises(ClientError, match="no production variant"):
        scaling.register_scalable_target(**VARIANT, MinCapacity=1, MaxCapacity=2)
    with pytest.raises(ClientError, match="DescribeScalingActivities is not supported"):
        scaling.describe_scaling_activities(ServiceNamespace="sagemaker")
    pages = scaling.get_paginator("describe_scalable_targets").paginate(ServiceNamespace="sagemaker")
    assert [target for page in pages for target in page["ScalableTargets"] if "none" in target["ResourceId"]] == []
