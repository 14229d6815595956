"""What an endpoint captures of its traffic, as AWS writes it."""

import base64
import json
import re
import tarfile

import pytest

ROLE = "arn:aws:iam::123456789012:role/serving"
CAPTURE = {
    "EnableCapture": True,
    "InitialSamplingPercentage": 100,
    "DestinationS3Uri": "s3://the-bucket/capture/",
    "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
    "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
}


@pytest.fixture
def ask(sagemaker, outside, until, tmp_path):
    """Put an endpoint with a DataCaptureConfig into service, ask it once, and return what is captured at the end."""

    def ask(capture, headers):
        archive = tmp_path / "model.tar.gz"
        with tarfile.open(archive, "w:gz"):
            pass
        url = outside.put("m/model.tar.gz", archive.read_bytes())
        container = {"Image": "123.dkr.ecr.x.amazonaws.com/tiny:1", "ModelDataUrl": url}
        sagemaker.call("CreateModel", {"ModelName": "m", "PrimaryContainer": container, "ExecutionRoleArn": ROLE})
        variant = {"VariantName": "all", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
        config = {"EndpointConfigName": "m", "ProductionVariants": [variant], "DataCaptureConfig": capture}
        sagemaker.call("CreateEndpointConfig", config)
        described = sagemaker.call("DescribeEndpointConfig", {"EndpointConfigName": "m"})
        assert described["DataCaptureConfig"] == capture
        sagemaker.call("CreateEndpoint", {"EndpointName": "e", "EndpointConfigName": "m"})
        until(lambda: sagemaker.call("DescribeEndpoint", {"EndpointName": "e"})["EndpointStatus"] == "InService")
        sagemaker.invoke_endpoint("e", b"\xff\xd8 photo", headers)
        sagemaker.close()
        return {key: outside.read(key).decode().splitlines() for key in outside.keys("capture/")}

    return ask


def test_a_request_and_its_answer_are_one_line_below_the_endpoints_name_and_the_hour(ask, outside):
    ((key, lines),) = ask(CAPTURE, {"Content-Type": "image/jpeg"}).items()
    assert re.fullmatch(r"capture/e/all/\d{4}/\d\d/\d\d/\d\d/\d\d-\d\d-\d{3}-[0-9a-f-]{36}\.jsonl", key)
    (record,) = map(json.loads, lines)
    given, answer = record["captureData"]["endpointInput"], record["captureData"]["endpointOutput"]
    assert (given["observedContentType"], given["mode"], given["encoding"]) == ("image/jpeg", "INPUT", "BASE64")
    assert base64.b64decode(given["data"]) == b"\xff\xd8 photo"
    assert (answer["observedContentType"], answer["mode"], answer["encoding"]) == ("application/json", "OUTPUT", "JSON")
    assert json.loads(answer["data"])["content_type"] == "image/jpeg"
    assert record["eventVersion"] == "0"
    assert set(record["eventMetadata"]) == {"eventId", "inferenceTime"}
    assert ("s3", ROLE) in outside.identities


@pytest.mark.parametrize("changed", [{"EnableCapture": False}, {"InitialSamplingPercentage": 0}])
def test_what_is_not_sampled_leaves_nothing(ask, changed):
    assert ask(CAPTURE | changed, {"Content-Type": "image/jpeg"}) == {}


def test_one_side_alone_may_be_captured(ask):
    only_output = CAPTURE | {"CaptureOptions": [{"CaptureMode": "Output"}]}
    ((_, lines),) = ask(only_output, {"Content-Type": "image/jpeg"}).items()
    assert set(json.loads(lines[0])["captureData"]) == {"endpointOutput"}
