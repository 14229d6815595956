"""Auto scaling follows the champion: let go before an update, taken up again after it, whatever becomes of it."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

SCALED = {"max_instance_count": 3, "invocations_per_instance": 100}


@pytest.fixture(scope="module")
def scaled(stack, until):
    """An endpoint of its own whose champion has been scaled to two instances."""
    ours = dataclasses.replace(stack, endpoint_name=f"{stack.name}-scaled")
    ended = ours.run(ours.dataset(), serving=SCALED)
    assert ended["status"] == "SUCCEEDED", f"{ended.get('error')}: {ended.get('cause')}"
    load(ours, 170)
    until(lambda: ours.instances() == 2)
    load(ours, -170)  # so that it is over, and all sums are 0
    return ours


def load(stack, per_minute):
    """So many requests an instance more in each of the minutes until now, as the endpoint's metrics have them."""
    minute = datetime.now(UTC).replace(second=1)
    dimensions = {"EndpointName": stack.endpoint_name, "VariantName": "AllTraffic"}
    stack.client("cloudwatch").put_metric_data(
        Namespace="AWS/SageMaker",
        MetricData=[
            {
                "MetricName": "InvocationsPerInstance",
                "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
                "Timestamp": minute - timedelta(minutes=ago),
                "Value": per_minute,
            }
            for ago in range(-1, 5)
        ],
    )


def test_a_scaled_endpoint_gets_another_instance_type_and_stays_as_large(scaled):
    ended = scaled.run(scaled.dataset(mistakes=1), serving=SCALED, instances={"endpoint": "ml.m5.4xlarge"})
    assert ended["status"] == "SUCCEEDED", f"{ended.get('error')}: {ended.get('cause')}"
    assert scaled.instances() == 2
    assert scaled.capacity() == (1, 3)


@pytest.mark.parametrize("serves", ["wrong", "right"])
def test_a_deploy_that_comes_to_nothing_leaves_the_champion_scaled(scaled, serves):
    """A model that is taken back, and an execution that is stopped while auto scaling has let go."""
    before = scaled.endpoint()["EndpointConfigName"]
    execution = scaled.start(scaled.dataset(serves=serves), serving={"max_instance_count": 2})
    scaled.wait_for_state(execution, "UpdateEndpoint")
    assert scaled.capacity() is None
    if serves == "right":
        scaled.client("stepfunctions").stop_execution(executionArn=execution)
    else:
        assert scaled.end_of(execution)["error"] == "EndpointAnswersDiffer"
    scaled.wait_until_recovered(execution)
    assert scaled.endpoint()["EndpointConfigName"] == before
    assert scaled.instances() == 2
    assert scaled.capacity() == (1, 3)


def test_a_run_that_does_not_ask_for_scaling_ends_it(scaled):
    ended = scaled.run(scaled.dataset(mistakes=1))
    assert ended["status"] == "SUCCEEDED", f"{ended.get('error')}: {ended.get('cause')}"
    assert scaled.capacity() is None
    assert scaled.instances() == 1
