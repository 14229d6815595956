"""`kelpie bench-endpoint` against the endpoint of a run."""

import json
from xml.etree import ElementTree

import pytest


@pytest.mark.slow
def test_levels_knee_chart_and_price_of_a_live_endpoint(trained, live):
    assert trained["status"] == "SUCCEEDED"
    image = str(next((live.folder / "photos" / "test").glob("*/*.jpg")))
    measured = ("--most-clients", "4", "--seconds", "2", "--chart", "knee.svg")

    document = json.loads(live.ok("bench-endpoint", image, *measured, "--json"))

    assert [level["clients"] for level in document["levels"]] == [1, 2, 4]
    for level in document["levels"]:
        assert (level["answered"] > 0, level["failed"]) == (True, 0)
        assert 0 < level["p50_ms"] <= level["p95_ms"] <= level["p99_ms"]
    assert document["knee_clients"] in (1, 2, 4)
    assert (document["instance_type"], document["instance_count"]) == ("ml.m5.large", 1)
    assert document["usd_per_million_images"] > 0
    picture = ElementTree.parse(live.folder / "knee.svg").getroot()
    assert f"{document['knee_clients']} clients" in picture.attrib["aria-label"]
