"""Requests against botocore's model, in AWS's words."""

import json
import re
from datetime import UTC, datetime
from typing import Any

import botocore.session
import pytest
from botocore.validate import ParamValidator
from hypothesis import given, settings
from hypothesis import strategies as st

from localcloud.sagemaker.errors import ServiceError
from localcloud.sagemaker.validation import Support, _expression, refuse_unsupported, serialise, shaped, validate

MODEL = botocore.session.get_session().get_service_model("sagemaker")
JOB: dict[str, Any] = {
    "TrainingJobName": "a-job",
    "AlgorithmSpecification": {"TrainingImage": "tiny", "TrainingInputMode": "File"},
    "RoleArn": "arn:aws:iam::123456789012:role/training",
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/jobs"},
    "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
    "StoppingCondition": {"MaxRuntimeInSeconds": 60},
}


def refusal(action: str, parameters: object) -> tuple[str, str]:
    with pytest.raises(ServiceError) as caught:
        validate(action, parameters)
    return caught.value.code, caught.value.message


def test_valid_request_comes_back_unchanged():
    assert validate("CreateTrainingJob", JOB) == JOB


def test_pattern_is_refused_in_the_words_of_aws():
    code, message = refusal("DescribeTrainingJob", {"TrainingJobName": "a_job"})
    assert code == "ValidationException"
    assert message == (
        "1 validation error detected: Value 'a_job' at 'trainingJobName' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: [a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"
    )


def test_every_violation_is_reported_with_its_place():
    job = {
        **JOB,
        "InputDataConfig": [{"ChannelName": "a/b", "DataSource": {"S3DataSource": {"S3DataType": "Disk", "S3Uri": "s3://b/k"}}}],
        "StoppingCondition": {"MaxRuntimeInSeconds": 0},
        "HyperParameters": {"k" * 257: "v" * 2501},
    }  # fmt: skip
    del job["RoleArn"]
    code, message = refusal("CreateTrainingJob", job)
    assert code == "ValidationException"
    assert message.startswith("6 validation errors detected: Value null at 'roleArn' failed to satisfy constraint: ")
    assert "Value 'a/b' at 'inputDataConfig.1.member.channelName'" in message
    assert "Value 'Disk' at 'inputDataConfig.1.member.dataSource.s3DataSource.s3DataType'" in message
    assert "Member must satisfy enum value set: [ManifestFile, S3Prefix, AugmentedManifestFile, Converse]" in message
    assert "at 'stoppingCondition.maxRuntimeInSeconds' failed to satisfy constraint: Member must have value " in message
    assert "Map keys must have length less than or equal to 256" in message
    assert "Member must have length less than or equal to 2500" in message


@pytest.mark.parametrize(
    ("parameters", "place"),
    [
        ([], "input"),
        ({"TrainingJobName": 3}, "trainingJobName"),
        ({"TrainingJobName": True}, "trainingJobName"),
    ],
)
def test_wrong_type_cannot_be_read(parameters: object, place: str):
    code, message = refusal("DescribeTrainingJob", parameters)
    assert code == "SerializationException"
    assert f"'{place}'" in message


def test_unknown_parameter_is_named():
    code, message = refusal("DescribeTrainingJob", {"TrainingJobName": "a", "Colour": "red"})
    assert code == "ValidationException"
    assert "Unknown parameter 'Colour'" in message


def test_unknown_action_is_named():
    assert refusal("MakeCoffee", {}) == ("UnknownOperationException", "SageMaker has no operation 'MakeCoffee'")


@pytest.mark.parametrize("value", [1.5e9, datetime(2017, 7, 14, 2, 40), "2017-07-14T02:40:00+00:00"])
def test_timestamps_become_aware_datetimes(value: object):
    checked = validate("ListTrainingJobs", {"CreationTimeAfter": value})
    assert checked == {"CreationTimeAfter": datetime(2017, 7, 14, 2, 40, tzinfo=UTC)}


@pytest.mark.parametrize(
    ("value", "accepted"), [("größe-3 ²", True), ("a\u3000b", True), ("a;b", False), ("a😀", False)]
)
def test_unicode_classes_of_patterns(value: str, accepted: bool):
    request = {
        "ResourceArn": "arn:aws:sagemaker:us-east-1:123456789012:model/m",
        "Tags": [{"Key": "k", "Value": value}],
    }
    if accepted:
        assert validate("AddTags", request) == request
    else:
        assert "tags.1.member.value" in refusal("AddTags", request)[1]


def test_only_these_patterns_of_the_model_cannot_be_checked():
    patterns = {MODEL.shape_for(name).metadata.get("pattern") for name in MODEL.shape_names} - {None}
    unreadable = {pattern for pattern in patterns if _expression(pattern, True) is None}
    assert unreadable == {
        r"([\p{L}\p{Z}\p{N}_.:\/=+\-@]*)${1,256}",
        r"([\p{L}\p{Z}\p{N}_.:\/=+\-@]*)${1,128}",
        r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\t]*",
    }


@settings(deadline=None, max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.just("File"),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["TrainingJobName", "InputDataConfig", "ChannelName", "DataSource", "Tags", "Key", "x"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=8,
    )
)
def test_what_botocore_refuses_is_refused(value: object):
    """Only a null for an absent member is accepted beyond it: AWS takes it, and other clients than boto3 send it."""
    shape = MODEL.operation_model("CreateTrainingJob").input_shape
    request = {**JOB, **value} if isinstance(value, dict) else value
    without_nulls = _without_nulls(request)
    if ParamValidator().validate(without_nulls, shape).has_errors():
        with pytest.raises(ServiceError):
            validate("CreateTrainingJob", request)


def test_answer_is_shaped_by_the_model():
    record = {
        "TrainingJobName": "a",
        "ModelArtifacts": {"S3ModelArtifacts": "s3://b/k", "Secret": 1},
        "Mine": 2,
        "RoleArn": None,
    }
    assert shaped("DescribeTrainingJob", record) == {
        "TrainingJobName": "a",
        "ModelArtifacts": {"S3ModelArtifacts": "s3://b/k"},
    }


def test_timestamps_are_written_as_seconds():
    body = serialise({"CreationTime": datetime(2017, 7, 14, 2, 40, 0, 123456, UTC)})
    assert json.loads(body) == {"CreationTime": 1500000000.123}


SUPPORT = Support(
    honoured=frozenset({"Name", "List[].Known", "Map"}),
    only={"Mode": (("File",), "use File"), "List[].Flag": ((False,), "there is none")},
    ignored={"Size": "the disk is the disk"},
)


@pytest.mark.parametrize(
    "parameters",
    [
        {"Name": "x", "Size": 3, "Mode": "File", "Map": {"any.key": "v"}},
        {"List": [{"Known": {"deeper": [1]}}, {"Flag": False}]},
        {},
    ],
)
def test_supported_parameters_pass(parameters: dict):
    refuse_unsupported("DoIt", parameters, SUPPORT)


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"Other": 1}, "DoIt: the parameter Other is not supported by the local SageMaker"),
        ({"Other": {}}, "the parameter Other "),
        ({"List": [{"Known": 1}, {"Unknown": {"x": 1}}]}, "the parameter List[].Unknown.x "),
        ({"Mode": "Pipe"}, 'DoIt: Mode="Pipe" is not supported by the local SageMaker: use File'),
        ({"List": [{"Flag": True}]}, "List[].Flag=true"),
    ],
)
def test_unsupported_parameters_are_refused_by_name(parameters: dict, named: str):
    with pytest.raises(ServiceError, match=re.escape(named)) as caught:
        refuse_unsupported("DoIt", parameters, SUPPORT)
    assert caught.value.code == "UnsupportedOperation"


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
