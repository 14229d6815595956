"""Whatever botocore's model of SageMaker allows is answered or refused by name: never an internal error.

Requests are drawn from the model: a valid one with some of its members drawn anew, or all of it. Nothing outside is
there: a role cannot be assumed, so accepted jobs and endpoints fail at once, for that reason and no other.
"""

import copy
import functools
import itertools
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.validate import ParamValidator
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localcloud.containers.images import Images
from localcloud.containers.tiny import tiny_image
from localcloud.sagemaker.account import Ports
from localcloud.sagemaker.errors import ServiceError
from localcloud.sagemaker.service import ACTIONS, SageMaker
from localcloud.sagemaker.validation import operation, serialise
from tests.waiting import wait_for

ROLE = "arn:aws:iam::123456789012:role/training"
JOB = {
    "AlgorithmSpecification": {"TrainingImage": "tiny:1", "TrainingInputMode": "File"},
    "RoleArn": ROLE,
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/jobs"},
    "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
    "StoppingCondition": {"MaxRuntimeInSeconds": 60},
}
VARIANT = {"VariantName": "all", "ModelName": "m", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
TUNING = {
    "Strategy": "Random",
    "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": "accuracy"},
    "ResourceLimits": {"MaxNumberOfTrainingJobs": 1, "MaxParallelTrainingJobs": 1},
    "ParameterRanges": {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "1", "MaxValue": "2"}]},
}
METRICS = {"MetricDefinitions": [{"Name": "accuracy", "Regex": "accuracy=(.*)"}]}
DEFINITION = JOB | {"AlgorithmSpecification": JOB["AlgorithmSpecification"] | METRICS}
VALID: dict[str, dict[str, Any]] = {
    "CreateTrainingJob": {"TrainingJobName": "j", **JOB},
    "CreateHyperParameterTuningJob": {
        "HyperParameterTuningJobName": "t",
        "HyperParameterTuningJobConfig": TUNING,
        "TrainingJobDefinition": DEFINITION,
    },
    "CreateModel": {"ModelName": "m", "PrimaryContainer": {"Image": "tiny:1"}, "ExecutionRoleArn": ROLE},
    "CreateEndpointConfig": {"EndpointConfigName": "c", "ProductionVariants": [VARIANT]},
    "CreateEndpoint": {"EndpointName": "e", "EndpointConfigName": "c"},
    "UpdateEndpoint": {"EndpointName": "e", "EndpointConfigName": "c"},
    "UpdateEndpointWeightsAndCapacities": {
        "EndpointName": "e",
        "DesiredWeightsAndCapacities": [{"VariantName": "AllTraffic"}],
    },
    "CreateModelPackageGroup": {"ModelPackageGroupName": "g"},
    "CreateModelPackage": {
        "ModelPackageGroupName": "g",
        "InferenceSpecification": {
            "Containers": [{"Image": "tiny:1"}],
            "SupportedContentTypes": ["image/png"],
            "SupportedResponseMIMETypes": ["application/json"],
        },
    },
}
NAMES = {"CreateTrainingJob", "CreateHyperParameterTuningJob", "CreateModel", "CreateEndpointConfig", "CreateEndpoint"}
STRINGS = (
    *("a", "m", "c", "e", "g", "j", "t", "1", "0.5", "x", "true", "", "/opt/ml/x", "..", "é\n", "*"),
    *("accuracy", "(", "a(b)"),
    *("s3://bucket/key", "https://bucket/key", "s3://", "text/csv", "application/json", "tiny:1", "ml.m5.large"),
    *(ROLE, "arn:aws:sagemaker:us-east-1:123456789012:training-job/j", "arn:aws:kms:us-east-1:123456789012:key/k"),
    *("sg-1", "subnet-1", "2026-11-22", "P1D", "none", "10.0.0.0/8", "arn:aws:sns:us-east-1:123456789012:topic"),
)  # fmt: skip
REFUSALS = {
    "ValidationException",
    "UnsupportedOperation",
    "ResourceInUse",
    "ResourceNotFound",
    "ResourceLimitExceeded",
    "ConflictException",
}


def drawn(shape: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values that botocore's model allows for a shape."""
    return DRAWN[shape.type_name](shape, depth)


@st.composite
def structures(draw: Callable[..., Any], shape: Any, depth: int) -> dict[str, Any]:
    names = list(shape.required_members)
    optional = sorted(shape.members.keys() - set(names))
    if shape.metadata.get("union"):
        names = [draw(st.sampled_from(optional))]
    elif optional and depth < 6:
        names += draw(st.lists(st.sampled_from(optional), max_size=2, unique=True))
    return {name: draw(drawn(shape.members[name], depth + 1)) for name in names}


def strings(shape: Any, _depth: int) -> st.SearchStrategy[str]:
    if shape.enum:
        return st.sampled_from(shape.enum)
    return st.sampled_from(allowed(shape.name, shape.metadata.get("pattern"), *length(shape)))


@functools.cache
def allowed(name: str, pattern: str | None, shortest: int, longest: int | None) -> list[str]:
    """The strings that fit a shape, by the service's own check of botocore's model."""
    from localcloud.sagemaker.validation import _matches  # as a client cannot check more than the service does

    candidates = [*STRINGS, "a" * max(shortest, 1), "a" * (longest or 0), "1" * 12]
    fit = [
        text
        for text in candidates
        if shortest <= len(text) <= (len(text) if longest is None else longest)
        and (pattern is None or _matches(pattern, text))
    ]
    return fit or [f"no example of {name}"]


def length(shape: Any) -> tuple[int, int | None]:
    return shape.metadata.get("min", 0), shape.metadata.get("max")


def integers(shape: Any, _depth: int) -> st.SearchStrategy[int]:
    least, most = shape.metadata.get("min", 0), shape.metadata.get("max", 2**31)
    return st.sampled_from(sorted({least, min(least + 1, most), min(least + 2, most), min(60, most), most}))


def floats(shape: Any, _depth: int) -> st.SearchStrategy[float]:
    least, most = shape.metadata.get("min", -1e6), shape.metadata.get("max", 1e6)
    return st.floats(least, most)


def lists(shape: Any, depth: int) -> st.SearchStrategy[list[Any]]:
    least, most = length(shape)
    return st.lists(drawn(shape.member, depth + 1), min_size=least, max_size=min(least + 2, most or least + 2))


def maps(shape: Any, depth: int) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(drawn(shape.key, depth + 1), drawn(shape.value, depth + 1), max_size=2)


def timestamps(_shape: Any, _depth: int) -> st.SearchStrategy[datetime]:
    return st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


DRAWN: dict[str, Callable[[Any, int], st.SearchStrategy[Any]]] = {
    "structure": structures,
    "list": lists,
    "map": maps,
    "string": strings,
    "integer": integers,
    "long": integers,
    "float": floats,
    "double": floats,
    "boolean": lambda _shape, _depth: st.booleans(),
    "timestamp": timestamps,
}


@st.composite
def requests(draw: Callable[..., Any], action: str) -> dict[str, Any]:
    shape = operation(action).input_shape
    if action not in VALID or draw(st.integers(0, 4)) == 0:
        return draw(structures(shape, 0))
    request = copy.deepcopy(VALID[action])
    anew = draw(st.lists(st.sampled_from(sorted(shape.members)), min_size=1, max_size=3, unique=True))
    for name in anew:
        member = shape.members[name]
        value = draw(drawn(member, 1))
        if isinstance(value, dict) and isinstance(request.get(name), dict):
            value = request[name] | value
        request[name] = value
    return request


@pytest.fixture(scope="module")
def sagemaker() -> Iterator[SageMaker]:
    def client(_service: str, _role: str | None) -> Any:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "nobody may"}}, "AssumeRole")

    def role_environment(_role: str) -> dict[str, str]:
        raise ServiceError("ValidationException", "nobody may")

    with tempfile.TemporaryDirectory() as home:
        ports = Ports(client, role_environment, lambda *_event: None)
        service = SageMaker(Path(home), Images({"tiny": tiny_image()}), ports, "us-east-1", "123456789012")
        for action in ("CreateModel", "CreateEndpointConfig", "CreateModelPackageGroup"):
            service.call(action, VALID[action])
        yield service
        service.close()


NUMBERS = itertools.count()


@pytest.mark.parametrize("action", sorted(ACTIONS))
def test_a_request_is_answered_or_refused_by_name(sagemaker, action):
    @settings(
        max_examples=120 if action in VALID else 20,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    @given(requests(action))
    def answered_or_refused(request: dict[str, Any]) -> None:
        if action in NAMES and action in VALID:
            (name, *_) = VALID[action]
            if request.get(name) == VALID[action][name]:
                request = request | {name: f"n{next(NUMBERS)}"}
        try:
            answer = sagemaker.call(action, request)
        except ServiceError as error:
            assert error.code in REFUSALS, error  # noqa: PT017 - any refusal is fine, and so is an answer
            return
        if output := operation(action).output_shape:
            report = ParamValidator().validate(answer, output).generate_report()
            # A job that failed has no artifacts, whatever the model says of its description.
            assert [line for line in report.splitlines() if not line.startswith("Missing required")] == []
        serialise(answer)

    answered_or_refused()


def test_what_was_accepted_fails_for_the_role_and_nothing_else(sagemaker):
    def running():
        return sagemaker.call("ListTrainingJobs", {"StatusEquals": "InProgress"})["TrainingJobSummaries"]

    wait_for(lambda: not running(), running)
    for job in sagemaker.call("ListTrainingJobs", {"MaxResults": 100})["TrainingJobSummaries"]:
        described = sagemaker.call("DescribeTrainingJob", {"TrainingJobName": job["TrainingJobName"]})
        assert "InternalServerError" not in described.get("FailureReason", ""), described
    for endpoint in sagemaker.call("ListEndpoints", {"MaxResults": 100})["Endpoints"]:
        described = sagemaker.call("DescribeEndpoint", {"EndpointName": endpoint["EndpointName"]})
        assert "InternalServerError" not in described.get("FailureReason", ""), described
