"""Serverless endpoints: the server rests when nobody asks it, and no more is asked at once than was agreed."""

import os
import threading
from typing import Any

import pytest

from localcloud.sagemaker.errors import ServiceError
from localcloud.sagemaker.service import SageMaker
from tests.local.sagemaker.serving import ask, create
from tests.waiting import PATIENCE_SECONDS, wait_for


@pytest.fixture
def serverless(sagemaker, make_config) -> dict[str, Any]:
    """An endpoint in service that answers two requests at once."""
    make_config(sagemaker, "first")
    configure(sagemaker, "small", MaxConcurrency=2)
    return create(sagemaker, "small")


def configure(sagemaker: SageMaker, name: str, model: str = "first", **config: Any) -> None:
    variant = {"VariantName": "AllTraffic", "ModelName": model}
    variant["ServerlessConfig"] = {"MemorySizeInMB": 2048, **config}
    sagemaker.call("CreateEndpointConfig", {"EndpointConfigName": name, "ProductionVariants": [variant]})


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_serverless_endpoint_answers_and_says_what_it_is(sagemaker, serverless):
    (variant,) = serverless["ProductionVariants"]
    assert variant["CurrentServerlessConfig"] == {"MemorySizeInMB": 2048, "MaxConcurrency": 2}
    assert "CurrentInstanceCount" not in variant
    assert ask(sagemaker)["name"] == "first"


@pytest.mark.usefixtures("serverless")
def test_the_server_rests_and_the_next_request_wakes_it(sagemaker, monkeypatch):
    pid = ask(sagemaker)["pid"]
    monkeypatch.setattr("localcloud.sagemaker.serverless.REST_SECONDS", 0.0)
    wait_for(lambda: not is_alive(pid))
    monkeypatch.undo()
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(ask(sagemaker))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    woken = {answer["pid"] for answer in answers}
    assert len(answers) == 2
    assert len(woken) == 1
    assert pid not in woken


@pytest.mark.usefixtures("serverless")
def test_more_than_was_agreed_at_once_is_throttled(sagemaker):
    refusals: list[ServiceError] = []

    def keep_asking() -> None:
        while not refusals:
            try:
                ask(sagemaker, "sleep=0.2")
            except ServiceError as error:
                refusals.append(error)

    clients = [threading.Thread(target=keep_asking) for _ in range(3)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(PATIENCE_SECONDS)
    assert {(error.code, error.http_status) for error in refusals} == {("ThrottlingException", 429)}
    assert ask(sagemaker)["name"] == "first"


@pytest.mark.usefixtures("serverless")
def test_a_body_may_have_four_mebibytes(sagemaker):
    assert ask(sagemaker, body=b"x" * (4 << 20))["size"] == 4 << 20
    with pytest.raises(ServiceError, match="less than or equal to 4194304"):
        ask(sagemaker, body=b"x" * ((4 << 20) + 1))


@pytest.mark.usefixtures("serverless")
def test_an_endpoint_stays_serverless(sagemaker):
    with pytest.raises(ServiceError, match="cannot become serverless, nor a serverless one"):
        sagemaker.call("UpdateEndpoint", {"EndpointName": "kelp", "EndpointConfigName": "first"})
    wish = {"VariantName": "AllTraffic", "DesiredInstanceCount": 2}
    with pytest.raises(ServiceError, match="it has no DesiredInstanceCount"):
        sagemaker.call(
            "UpdateEndpointWeightsAndCapacities", {"EndpointName": "kelp", "DesiredWeightsAndCapacities": [wish]}
        )


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ([{"InstanceType": "ml.m5.large"}], "either ServerlessConfig or InstanceType"),
        ([{}, {"VariantName": "b"}], "has one production variant"),
        (
            [{"ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 1, "ProvisionedConcurrency": 1}}],
            "ProvisionedConcurrency is not supported",
        ),
    ],
)
def test_what_no_serverless_endpoint_has_is_refused(sagemaker, make_config, variants, message):
    make_config(sagemaker, "first")
    plain = {
        "VariantName": "a",
        "ModelName": "first",
        "ServerlessConfig": {"MemorySizeInMB": 2048, "MaxConcurrency": 1},
    }
    with pytest.raises(ServiceError, match=message):
        sagemaker.call(
            "CreateEndpointConfig",
            {"EndpointConfigName": "bad", "ProductionVariants": [plain | variant for variant in variants]},
        )
