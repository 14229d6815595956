"""What `kelpie bench-endpoint` makes of answers and their times."""

import re
import threading
from xml.etree import ElementTree

import botocore.exceptions
import pytest

from kelpie import bench, bench_chart
from kelpie.errors import InvalidInput


def level(clients, images_per_second):
    return bench.Level(clients, 10, 0, images_per_second, 1.0, 2.0, 3.0)


def document(**changes):
    return {
        "endpoint": "kelpie",
        "instance_type": "ml.m5.large",
        "instance_count": 2,
        "levels": [vars(level(1, 10.0)), vars(bench.Level(2, 0, 4, 0.0, None, None, None))],
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


def test_all_clients_ask_at_once_and_failures_are_counted_apart():
    together, seen = threading.Barrier(3, timeout=10), set()

    def ask(number):
        seen.add(number % 3)
        if number < 3:
            together.wait()
        if number % 3 == 2:
            raise botocore.exceptions.ClientError({"Error": {"Code": "ModelError"}}, "InvokeEndpoint")

    measured = bench.measure(ask, 3, 0.05)
    assert seen == {0, 1, 2}
    assert measured.answered > 0
    assert measured.failed > 0


def test_the_chart_marks_the_knee_and_the_sentence_tells_the_price():
    table = bench.chart(document())
    assert [str(cell) for cell in table.columns[2].cells] == ["█" * bench.BAR + " ← knee", "█"]
    assert [str(cell) for cell in table.columns[3].cells] == ["1.0", "-"]
    assert "$6.39 a million images on 2 x ml.m5.large" in bench.sentence(document())
    unknown = bench.sentence(document(usd_per_million_images=None, instance_type="ml.x9.large"))
    assert "has no ml.x9.large" in unknown


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
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", drawn))
    assert used <= set(bench_chart.COLOURS)
