"""What the local SageMaker says that it honours are fields that AWS has: a misspelt one would be refused for ever."""

import re

import pytest

from localcloud.sagemaker import endpoint_configs, endpoints, model_packages, models, training_requests, tuning_requests
from localcloud.sagemaker.validation import Support, operation

SUPPORTED = {
    "CreateEndpoint": endpoints.CREATE_SUPPORT,
    "CreateEndpointConfig": endpoint_configs.SUPPORT,
    "CreateHyperParameterTuningJob": tuning_requests.SUPPORT,
    "CreateModel": models.SUPPORT,
    "CreateModelPackage": model_packages.CREATE_SUPPORT,
    "CreateModelPackageGroup": model_packages.GROUP_SUPPORT,
    "CreateTrainingJob": training_requests.SUPPORT,
    "ListModelPackageGroups": model_packages.LIST_GROUPS_SUPPORT,
    "ListTrainingJobs": training_requests.LIST_SUPPORT,
    "UpdateEndpoint": endpoints.UPDATE_SUPPORT,
    "UpdateEndpointWeightsAndCapacities": endpoints.WEIGHTS_SUPPORT,
    "UpdateModelPackage": model_packages.UPDATE_SUPPORT,
}


@pytest.mark.parametrize(("action", "support"), SUPPORTED.items(), ids=SUPPORTED)
def test_every_field_exists(action: str, support: Support):
    unknown = [path for path in (*support.honoured, *support.only, *support.ignored) if not _exists(action, path)]
    assert unknown == []


@pytest.mark.parametrize(("action", "support"), SUPPORTED.items(), ids=SUPPORTED)
def test_every_limited_value_exists(action: str, support: Support):
    for path, (values, _) in support.only.items():
        shape = _shape(action, path)
        if shape.type_name == "string" and shape.enum:
            assert set(values) <= set(shape.enum), path


def _exists(action: str, path: str) -> bool:
    try:
        _shape(action, path)
    except (KeyError, AttributeError):
        return False
    return True


def _shape(action: str, path: str):
    shape = operation(action).input_shape
    for part in re.findall(r"\[\]|[^.\[\]]+", path):
        shape = shape.member if part == "[]" else shape.members[part]
    return shape
