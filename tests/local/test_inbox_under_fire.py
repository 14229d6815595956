"""Nothing is lost and nothing is answered twice while everything goes wrong: the load proof, with fewer images."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "inbox_under_fire.py"


@pytest.fixture(scope="module")
def fire():
    specification = importlib.util.spec_from_file_location("inbox_under_fire", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_each_version_gets_its_one_result_whatever_goes_wrong(fire, tmp_path):
    report = fire.under_fire(tmp_path, count=60, seed=1, timeout_seconds=900)
    assert (report["versions_in"], report["results_out"]) == (60, 60)
    assert (report["lost"], report["results_doubled"], report["results_of_nothing"], report["wrong"]) == (0, 0, 0, 0)
    assert report["swept"] >= 1
    assert report["events_heard"] == 60
    assert report["statuses"]["rejected"] >= 1
