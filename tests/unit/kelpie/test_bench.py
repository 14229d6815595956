"""What `kelpie bench-endpoint` makes of answers and their times."""

import re
import threading
from xml.etree import ElementTree

import botocore.exceptions
import pytest
from botocore.stub import Stubber

from kelpie import bench, bench_chart
from kelpie.errors import CloudUnavailable, InvalidInput, RunFailed

EXPIRED = ("ExpiredTokenException", "The security token included in the request is expired")
NOT_THERE = ("ValidationException", 'Could not find endpoint "kelpie".')
DENIED = ("AccessDeniedException", "no identity-based policy allows sagemaker:InvokeEndpoint")


def refusing(stack, service, operation, error):
    """Have the next request of a service refused."""
    stub = Stubber(stack.client(service))
    stub.add_client_error(operation, *error)
    stub.activate()


def deployed(stack):
    """Have the endpoint described as one that is in service."""
    made = {"CreationTime": 0}
    stub = Stubber(stack.client("sagemaker"))
    endpoint = {"EndpointName": "kelpie", "EndpointArn": "a" * 20, "EndpointStatus": "InService", "LastModifiedTime": 0}
    variant = {"VariantName": "all", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    config = {"EndpointConfigName": "c", "EndpointConfigArn": "a" * 20, "ProductionVariants": [variant]}
    stub.add_response("describe_endpoint", {**endpoint, **made, "EndpointConfigName": "c"})
    stub.add_response("describe_endpoint_config", {**config, **made})
    stub.activate()


def level(clients, images_per_second):
    return bench.Level(clients, 10, 0, None, images_per_second, 1.0, 2.0, 3.0)


def document(**changes):
    return {
        "endpoint": "kelpie",
        "instance_type": "ml.m5.large",
        "instance_count": 2,
        "levels": [vars(level(1, 10.0)), vars(bench.Level(2, 0, 4, "Throttled", 0.0, None, None, None))],
        "knee_clients": 1,
        "images_per_second": 10.0,
        "usd_per_million_images": 6.39,
        "prices_as_of": "2025-06-30",
        "prices_region": "us-east-1",
    } | changes


@pytest.mark.parametrize(
    ("rates", "clients"), [([10, 19, 20, 20], 2), ([10, 10, 10, 10], 1), ([10, 20, 40, 80], 8), ([0, 0], 1)]
)
def test_the_knee_is_the_last_level_that_was_worth_its_clients(rates, clients):
    assert bench.knee([level(2**n, rate) for n, rate in enumerate(rates)]).clients == clients


def test_percentiles_are_milliseconds():
    assert bench.percentiles([n / 1000 for n in range(101)]) == (50, 95, 99)
    assert bench.percentiles([0.25]) == (250, 250, 250)
    assert bench.percentiles([]) == (None, None, None)


@pytest.mark.parametrize("seconds", [0.05, 0])
def test_all_clients_ask_at_once_and_failures_are_counted_apart(seconds):
    """Each at least once, though it comes to it when the time is over."""
    together, seen = threading.Barrier(3, timeout=300), set()

    def ask(number):
        seen.add(number % 3)
        if number < 3:
            together.wait()
        if number % 3 == 2:
            raise botocore.exceptions.ClientError({"Error": {"Code": "ModelError"}}, "InvokeEndpoint")

    measured = bench.measure(ask, 3, seconds)
    assert seen == {0, 1, 2}
    assert measured.answered > 0
    assert measured.failed > 0
    assert "ModelError" in measured.first_error


def test_only_an_endpoint_that_is_not_there_is_said_not_to_be_there(stack):
    refusing(stack, "sagemaker", "describe_endpoint", NOT_THERE)
    with pytest.raises(CloudUnavailable, match="no endpoint kelpie"):
        bench.run(stack, "kelpie", [(b"", "image/png")], [1], 0.1)


def test_another_refusal_to_tell_of_the_endpoint_is_told_as_it_is(stack):
    refusing(stack, "sagemaker", "describe_endpoint", EXPIRED)
    with pytest.raises(botocore.exceptions.ClientError, match="token included in the request is expired"):
        bench.run(stack, "kelpie", [(b"", "image/png")], [1], 0.1)


def test_where_nothing_is_answered_the_first_error_is_told(stack):
    deployed(stack)
    refusing(stack, "sagemaker-runtime", "invoke_endpoint", DENIED)
    with pytest.raises(RunFailed, match=r"endpoint kelpie answers nothing.*no identity-based policy"):
        bench.run(stack, "kelpie", [(b"", "image/png")], [1], 0.1)


def test_the_chart_marks_the_knee_and_the_sentence_tells_the_price():
    table = bench.chart(document())
    assert [str(cell) for cell in table.columns[2].cells] == ["█" * bench.BAR + " ← knee", "█"]
    assert [str(cell) for cell in table.columns[3].cells] == ["1.0", "-"]
    assert "$6.39 a million images on 2 x ml.m5.large" in bench.sentence(document())
    assert list(table.columns[6].cells) == ["0", "4: Throttled"]
    unknown = bench.sentence(document(usd_per_million_images=None, instance_type="ml.x9.large"))
    assert "has no ml.x9.large" in unknown
    unanswered = bench.sentence(document(usd_per_million_images=None, images_per_second=0.0))
    assert unanswered == "Nothing was answered, so there is no price to tell."


def test_only_images_can_be_asked_about(tmp_path):
    (tmp_path / "a.txt").write_text("no image")
    for name in ("a.txt", "gone.jpg"):
        with pytest.raises(InvalidInput, match=name):
            bench.read_images([str(tmp_path / name)])


def test_the_picture_stands_alone_and_marks_the_knee():
    levels = [vars(level(2**n, rate)) for n, rate in enumerate([10.0, 19.0, 20.0])]
    drawn = bench_chart.svg(document(levels=levels, knee_clients=2, images_per_second=19.0))
    picture = ElementTree.fromstring(drawn)
    assert picture.attrib["aria-label"] == "kelpie: 19.0 images a second at its knee, 2 clients."
    said = {element.text for element in picture.iter() if element.text}
    assert {"knee", "images a second", "p99, milliseconds"} <= said
    assert {"0", "1", "2", "4"} <= said  # throughput begins at nothing, each level has its tick
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", drawn))
    assert used <= set(bench_chart.COLOURS)
