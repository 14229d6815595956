"""Several production variants: their shares of the traffic, and what they are changed to while they serve."""

from collections import Counter
from typing import Any

import pytest

from localcloud.sagemaker import fleets
from localcloud.sagemaker.errors import ServiceError
from localcloud.sagemaker.service import SageMaker
from tests.local.sagemaker.serving import ask, create, settled, variant


@pytest.fixture
def two_variants(sagemaker, make_config) -> dict[str, Any]:
    """An endpoint in service: `first` gets three of four requests, `second` the rest."""
    make_config(sagemaker, "first")
    make_config(sagemaker, "second")
    configure(sagemaker, "both", first=3, second=1)
    return create(sagemaker, "both")


def configure(sagemaker: SageMaker, name: str, **weights: float) -> None:
    """An endpoint configuration with a variant for each model, of the model's name."""
    variants = [variant(model, VariantName=model, InitialVariantWeight=weight) for model, weight in weights.items()]
    sagemaker.call("CreateEndpointConfig", {"EndpointConfigName": name, "ProductionVariants": variants})


def change(sagemaker: SageMaker, **wishes: dict[str, Any]) -> dict[str, Any]:
    """The endpoint's description once its variants are as wished."""
    desired = [{"VariantName": name, **wish} for name, wish in wishes.items()]
    request = {"EndpointName": "kelp", "DesiredWeightsAndCapacities": desired}
    sagemaker.call("UpdateEndpointWeightsAndCapacities", request)
    return settled(sagemaker)


def answers(sagemaker: SageMaker, requests: int) -> Counter[str]:
    return Counter(ask(sagemaker)["name"] for _ in range(requests))


def now(endpoint: dict[str, Any]) -> dict[str, tuple[float, int]]:
    variants = endpoint["ProductionVariants"]
    return {one["VariantName"]: (one["CurrentWeight"], one["CurrentInstanceCount"]) for one in variants}


@pytest.mark.usefixtures("two_variants")
def test_requests_are_shared_by_weight(sagemaker):
    assert answers(sagemaker, 12) == {"first": 9, "second": 3}


def test_a_request_may_name_its_variant(sagemaker, two_variants):
    assert now(two_variants) == {"first": (3, 1), "second": (1, 1)}
    answer = sagemaker.invoke_endpoint("kelp", b"image", {"X-Amzn-SageMaker-Target-Variant": "second"})
    assert answer.headers["x-Amzn-Invoked-Production-Variant"] == "second"
    with pytest.raises(ServiceError, match="Variant third not found for endpoint kelp"):
        sagemaker.invoke_endpoint("kelp", b"image", {"X-Amzn-SageMaker-Target-Variant": "third"})


def test_an_endpoint_fails_with_the_variant_that_does_not_start(sagemaker, make_config):
    make_config(sagemaker, "first", starts_in_seconds=60)
    make_config(sagemaker, "second", crashes=True)
    configure(sagemaker, "both", first=1, second=1)
    endpoint = create(sagemaker, "both")
    assert endpoint["EndpointStatus"] == "Failed"
    assert "production variant second did not pass the ping health check" in endpoint["FailureReason"]


@pytest.mark.usefixtures("two_variants")
def test_a_change_that_breaks_off_unforeseen_leaves_the_endpoint_as_it_was(sagemaker, monkeypatch):
    real, begun = fleets.launch_of, []

    def no_more_than_one(*given):
        begun.append(given)
        if len(begun) > 1:
            raise OSError("no space left on device")
        return real(*given)

    monkeypatch.setattr(fleets, "launch_of", no_more_than_one)
    endpoint = change(sagemaker, first={"DesiredWeight": 1}, second={"DesiredInstanceCount": 3})
    assert len(begun) == 2
    assert (endpoint["EndpointStatus"], now(endpoint)) == ("InService", {"first": (3, 1), "second": (1, 1)})
    assert answers(sagemaker, 12) == {"first": 9, "second": 3}
    monkeypatch.undo()
    assert now(change(sagemaker, second={"DesiredInstanceCount": 2})) == {"first": (3, 1), "second": (1, 2)}


@pytest.mark.usefixtures("two_variants")
def test_weights_and_numbers_of_instances_change_while_the_endpoint_serves(sagemaker):
    endpoint = change(sagemaker, first={"DesiredWeight": 1}, second={"DesiredInstanceCount": 2})
    assert now(endpoint) == {"first": (1, 1), "second": (1, 2)}
    assert answers(sagemaker, 10) == {"first": 5, "second": 5}

    endpoint = change(sagemaker, first={"DesiredWeight": 0}, second={"DesiredInstanceCount": 1})
    assert now(endpoint) == {"first": (0, 1), "second": (1, 1)}
    assert answers(sagemaker, 10) == {"second": 10}


@pytest.mark.usefixtures("two_variants")
def test_instances_that_cannot_be_had_leave_the_endpoint_as_it_was(sagemaker):
    sagemaker.faults.add({"Fault": "InsufficientCapacity", "Name": "kelp"})
    endpoint = change(sagemaker, first={"DesiredInstanceCount": 2, "DesiredWeight": 1})
    assert now(endpoint) == {"first": (3, 1), "second": (1, 1)}
    assert endpoint["EndpointStatus"] == "InService"


@pytest.mark.usefixtures("two_variants")
def test_variants_are_as_they_were_changed_after_a_restart(sagemaker, start_service):
    change(sagemaker, first={"DesiredWeight": 0}, second={"DesiredInstanceCount": 2})
    sagemaker.close()
    again = start_service()
    assert now(settled(again)) == {"first": (0, 1), "second": (1, 2)}
    assert answers(again, 4) == {"second": 4}


@pytest.mark.usefixtures("two_variants")
def test_an_update_may_replace_two_variants_by_one(sagemaker):
    sagemaker.call("UpdateEndpoint", {"EndpointName": "kelp", "EndpointConfigName": "second"})
    assert now(settled(sagemaker)) == {"AllTraffic": (1, 1)}
    assert answers(sagemaker, 3) == {"second": 3}


@pytest.mark.usefixtures("two_variants")
@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"VariantName": "third", "DesiredWeight": 1}, "no production variant third"),
        ({"VariantName": "first", "DesiredInstanceCount": 0}, "must be at least 1"),
        (
            {"VariantName": "first", "ServerlessUpdateConfig": {"MaxConcurrency": 1}},
            r"DesiredWeightsAndCapacities\[\].ServerlessUpdateConfig",
        ),
    ],
)
def test_what_variants_cannot_be_changed_to_is_refused(sagemaker, wish, message):
    with pytest.raises(ServiceError, match=message):
        sagemaker.call(
            "UpdateEndpointWeightsAndCapacities", {"EndpointName": "kelp", "DesiredWeightsAndCapacities": [wish]}
        )


@pytest.mark.usefixtures("two_variants")
def test_guardrails_are_for_one_variant(sagemaker):
    routing = {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}
    guarded = {"BlueGreenUpdatePolicy": {"TrafficRoutingConfiguration": routing}}
    with pytest.raises(ServiceError, match="endpoint of one production variant; this one has first, second"):
        sagemaker.call(
            "UpdateEndpoint", {"EndpointName": "kelp", "EndpointConfigName": "both", "DeploymentConfig": guarded}
        )


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ([{"VariantName": "a"}, {"VariantName": "a"}], "names of production variants must be unique; got a, a"),
        ([{"VariantName": "a", "InitialVariantWeight": 0}], "InitialVariantWeight greater than 0"),
    ],
)
def test_variants_that_contradict_themselves_are_refused(sagemaker, make_config, variants, message):
    make_config(sagemaker, "first")
    with pytest.raises(ServiceError, match=message):
        sagemaker.call(
            "CreateEndpointConfig",
            {"EndpointConfigName": "bad", "ProductionVariants": [variant("first", **one) for one in variants]},
        )
