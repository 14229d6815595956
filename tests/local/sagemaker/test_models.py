"""Models and endpoint configurations: what is recorded, what is looked up, and what is refused."""

import dataclasses
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud.sagemaker.errors import ServiceError

ROLE = "arn:aws:iam::123456789012:role/serving"


def model(url: str | None = None, **members: Any) -> dict[str, Any]:
    container = {"Image": "123.dkr.ecr.x.amazonaws.com/tiny:1"} | ({"ModelDataUrl": url} if url else {})
    return {"ModelName": "kelp", "PrimaryContainer": container, "ExecutionRoleArn": ROLE, **members}


def config(**members: Any) -> dict[str, Any]:
    variant = {"VariantName": "v", "ModelName": "kelp", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    return {"EndpointConfigName": "kelp", "ProductionVariants": [{**variant, **members}]}


def test_a_model_is_described_listed_and_deleted(sagemaker, outside):
    url = outside.put("model.tar.gz", b"weights")
    arn = sagemaker.call("CreateModel", model(url))["ModelArn"]
    assert arn == "arn:aws:sagemaker:us-east-1:123456789012:model/kelp"
    described = sagemaker.call("DescribeModel", {"ModelName": "kelp"})
    assert described["PrimaryContainer"]["ModelDataUrl"] == url
    assert described["PrimaryContainer"]["Mode"] == "SingleModel"
    assert ("s3", ROLE) in outside.identities
    assert [m["ModelName"] for m in sagemaker.call("ListModels", {"NameContains": "ke"})["Models"]] == ["kelp"]
    with pytest.raises(ServiceError, match="Cannot create already existing model"):
        sagemaker.call("CreateModel", model(url))
    sagemaker.call("DeleteModel", {"ModelName": "kelp"})
    with pytest.raises(ServiceError, match='Could not find model "arn:aws:sagemaker') as caught:
        sagemaker.call("DescribeModel", {"ModelName": "kelp"})
    assert caught.value.code == "ValidationException"


def test_a_model_without_its_data_is_refused(sagemaker):
    with pytest.raises(ServiceError, match=r"Could not find model data at s3://the-bucket/none\.tar\.gz"):
        sagemaker.call("CreateModel", model("s3://the-bucket/none.tar.gz"))
    with pytest.raises(ServiceError, match="not of the form s3://bucket/key"):
        sagemaker.call("CreateModel", model("https://somewhere/model.tar.gz"))


def test_a_model_that_its_role_may_not_read_is_refused(sagemaker):
    class Denied:
        def head_object(self, **_: str) -> None:
            raise ClientError({"Error": {"Code": "403", "Message": "Forbidden"}}, "HeadObject")

    sagemaker.account.ports = dataclasses.replace(sagemaker.account.ports, client=lambda *_: Denied())
    with pytest.raises(ServiceError, match=r'Could not access model data .* role "arn:aws:iam::123456789012:role/ser'):
        sagemaker.call("CreateModel", model("s3://the-bucket/model.tar.gz"))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"Containers": [{"Image": "a"}]}, "more than one container is not supported"),
        ({"PrimaryContainer": {"Image": "a", "Mode": "MultiModel"}}, 'Mode="MultiModel" is not supported'),
        ({"PrimaryContainer": {"ModelPackageName": "a"}}, "model-package/a does not exist"),
        ({"PrimaryContainer": None}, "PrimaryContainer.Image is required"),
    ],
)
def test_models_that_cannot_be_served_are_refused(sagemaker, parameters, message):
    with pytest.raises(ServiceError, match=message):
        sagemaker.call("CreateModel", {**model(), **parameters})


def test_an_endpoint_configuration_is_described_listed_and_deleted(sagemaker):
    sagemaker.call("CreateModel", model())
    sagemaker.call("CreateEndpointConfig", config())
    described = sagemaker.call("DescribeEndpointConfig", {"EndpointConfigName": "kelp"})
    assert described["ProductionVariants"][0]["InitialVariantWeight"] == 1.0
    assert len(sagemaker.call("ListEndpointConfigs", {})["EndpointConfigs"]) == 1
    with pytest.raises(ServiceError, match="Cannot create already existing endpoint configuration"):
        sagemaker.call("CreateEndpointConfig", config())
    sagemaker.call("DeleteEndpointConfig", {"EndpointConfigName": "kelp"})
    with pytest.raises(ServiceError, match="Could not find endpoint configuration"):
        sagemaker.call("CreateEndpoint", {"EndpointName": "kelp", "EndpointConfigName": "kelp"})


CAPTURE = {
    "EnableCapture": True,
    "InitialSamplingPercentage": 100,
    "DestinationS3Uri": "https://b/",
    "CaptureOptions": [{"CaptureMode": "Input"}],
}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (config(ModelName="none"), "Could not find model"),
        (config() | {"DataCaptureConfig": CAPTURE}, "DataCaptureConfig.DestinationS3Uri"),
        (config(ContainerStartupHealthCheckTimeoutInSeconds=5), "must have value greater than or equal to 60"),
    ],
)
def test_configurations_that_cannot_be_served_are_refused(sagemaker, parameters, message):
    sagemaker.call("CreateModel", model())
    with pytest.raises(ServiceError, match=message):
        sagemaker.call("CreateEndpointConfig", parameters)
