"""The resource on which IAM checks a request to SageMaker."""

import json

import pytest

from localcloud.ministack.sagemaker_authorisation import resource_of_request

VERSION = "arn:aws:sagemaker:us-east-1:000000000000:model-package/kelp/3"


@pytest.mark.parametrize(
    ("action", "parameters", "resource"),
    [
        ("CreateModelPackage", {"ModelPackageGroupName": "kelp"}, "model-package/kelp/*"),
        ("CreateModelPackage", {"ModelPackageName": "alone"}, "model-package/alone"),
        ("DescribeModelPackageGroup", {"ModelPackageGroupName": "kelp"}, "model-package-group/kelp"),
        ("UpdateModelPackage", {"ModelPackageArn": VERSION}, "model-package/kelp/3"),
        ("DescribeModelPackage", {"ModelPackageName": VERSION}, "model-package/kelp/3"),
        ("CreateEndpoint", {"EndpointName": "Kelp", "EndpointConfigName": "k"}, "endpoint/kelp"),
    ],
)
def test_resource(action, parameters, resource):
    headers = {"x-amz-target": f"SageMaker.{action}"}
    found = resource_of_request("/", headers, json.dumps(parameters).encode())
    assert found == f"arn:aws:sagemaker:us-east-1:000000000000:{resource}"


@pytest.mark.parametrize("body", [b"no JSON", b"[]", b"{}"])
def test_a_request_that_names_no_resource_needs_all(body):
    assert resource_of_request("/", {"x-amz-target": "SageMaker.ListModels"}, body) == "*"
