from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError

from tests.unit.functions.conftest import BUCKET

NOW = datetime.now(UTC)
RUNS = [f"kelpie-{number:012x}" for number in range(6)]
"""Oldest first."""


class SageMaker:
    """Configurations and models of six runs, one without its configuration; two endpoints; what others own."""

    def __init__(self):
        self.configs = {name: NOW - timedelta(days=10 - number) for number, name in enumerate(RUNS)}
        self.models = dict(self.configs)
        del self.configs[RUNS[1]]
        for somebodys in ("kelpie-by-hand", "kelpies-000000000000"):
            self.configs[somebodys] = self.models[somebodys] = NOW - timedelta(days=99)
        self.endpoints = {
            "kelpie": {"EndpointConfigName": RUNS[0], "PendingDeploymentSummary": {"EndpointConfigName": RUNS[3]}},
            "kelpie-cats": {"EndpointConfigName": "kelpie-by-hand"},
        }

    def get_paginator(self, operation):
        member, name, found = {
            "list_endpoint_configs": ("EndpointConfigs", "EndpointConfigName", self.configs),
            "list_models": ("Models", "ModelName", self.models),
            "list_endpoints": ("Endpoints", "EndpointName", dict.fromkeys(self.endpoints, NOW)),
        }[operation]
        pages = [{member: [{name: key, "CreationTime": created}]} for key, created in found.items()]
        return SimpleNamespace(paginate=lambda NameContains: pages)  # noqa: ARG005, N803 - AWS's name

    def describe_endpoint(self, EndpointName):  # noqa: N803 - AWS's name
        return self.endpoints[EndpointName]

    def delete_endpoint_config(self, EndpointConfigName):  # noqa: N803 - AWS's name
        if self.configs.pop(EndpointConfigName, None) is None:
            raise ClientError({"Error": {"Code": "ValidationException", "Message": "Could not find"}}, "Delete")

    def delete_model(self, ModelName):  # noqa: N803 - AWS's name
        del self.models[ModelName]


@pytest.fixture
def retire(load, monkeypatch, context, s3):
    monkeypatch.setenv("NAME_PREFIX", "kelpie")
    monkeypatch.setenv("BUCKET", BUCKET)
    app, sagemaker = load("retire_models"), SageMaker()
    monkeypatch.setattr(app, "client", {"sagemaker": sagemaker, "s3": s3}.__getitem__)

    def retire(keep):
        monkeypatch.setenv("KEEP_MODELS", str(keep))
        app.handler({}, context)
        return sagemaker

    return retire


def test_what_nothing_uses_goes_beyond_the_newest(retire):
    left = retire(keep=1)
    assert set(left.models) == {RUNS[0], RUNS[3], RUNS[5], "kelpie-by-hand", "kelpies-000000000000"}
    assert set(left.configs) == set(left.models)


def test_a_champion_stays_though_no_endpoint_runs_it_now(retire, put, example):
    """Its endpoint is on the way to another, or was deleted: a rollback would need it."""
    put(f"s3://{BUCKET}/endpoints/kelpie/lock.json", example("lock"))
    put(f"s3://{BUCKET}/endpoints/kelpie-dogs/champion.json", example("champion") | {"endpoint_config": RUNS[2]})
    left = retire(keep=1)
    assert RUNS[2] in left.models
    assert RUNS[2] in left.configs
    assert RUNS[4] not in left.models


def test_the_newest_stay_though_nothing_uses_them(retire):
    assert set(RUNS[2:]) <= set(retire(keep=4).models)


def test_what_a_run_has_just_made_stays_for_its_deploy(load):
    app = load("retire_models")
    made = {"young": NOW - timedelta(hours=23), "old": NOW - timedelta(hours=25), "newest": NOW}
    assert app.superfluous(made, set(), 1, NOW) == ["old"]
