"""What the page says of a run and of a result."""

import dataclasses
import datetime
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kelpie.execution import Trial
from kelpie.graph import Node
from kelpie.progress import Epoch, Progress
from kelpie.ui import plots
from kelpie.ui.pages import card, now_line, templates, trial_rows
from kelpie.ui.readings import Fresh

PARTS = ("curves", "findings")
AT = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)
ARN = "arn:aws:states:us-east-1:123456789012:execution:kelpie:one"
EXAMPLE = json.loads((Path(__file__).parents[4] / "contracts" / "examples" / "classification.json").read_text())


def progress(state, status="RUNNING", trials=(), epochs=None, jobs=(), **described):
    shown = {"executionArn": ARN, "name": "one", "status": status, "startDate": AT, **described}
    return Progress(shown, [], list(trials), epochs or {}, list(jobs), [], [Node(state, "", "now", 1, 1.0)])


def trial(name, objective, status="Completed"):
    return Trial(name, status, objective, {"learning_rate": "0.001"}, 1.0)


def test_a_line_says_what_goes_on():
    trials = [trial("a", 0.5), trial("b", 0.75), trial("c", None, "InProgress")]
    line = now_line(progress("TuneHyperparameters", trials=trials))
    assert line == "TuneHyperparameters · 2 of 3 trials ended · best 0.7500"
    job = f"kelpie-{progress('x').run}-train-1"
    epochs = {job: [Epoch(job, 3, 20, {}, "")]}
    assert now_line(progress("TrainModel", epochs=epochs, jobs=[job])) == "TrainModel · epoch 3 of 20"
    assert now_line(progress("EvaluateModel", epochs=epochs)) == "EvaluateModel"
    ended = {"stopDate": AT + datetime.timedelta(seconds=90), "error": "ModelRejected"}
    assert now_line(progress("x", "FAILED", **ended)) == "Ended FAILED after 1:30 min: ModelRejected"


def test_the_best_trial_comes_first_and_one_without_an_objective_last():
    running = trial("c", None, "InProgress")
    rows = trial_rows(
        progress("x", trials=[trial("a", 0.0), running, trial("b", 0.9)], epochs={"c": [Epoch("c", 2, 5, {}, "")]})
    )
    assert [(row["number"], row["at"]) for row in rows] == [(3, ""), (1, ""), (2, "epoch 2 of 5")]


def test_a_card_shows_a_picture_only_where_a_browser_can():
    assert card({**EXAMPLE, "content_type": "image/jpeg", "key": "inbox/a&b/ä.jpg"})["image"].startswith(
        "/inbox/image?key=inbox%2Fa%26b%2F%C3%A4.jpg&version="
    )
    for content_type in ("image/tiff", "text/html", None):
        assert card({**EXAMPLE, "content_type": content_type})["image"] is None


def test_nothing_that_a_stranger_wrote_becomes_markup():
    evil = "<img src=x onerror=alert(1)>"
    shown = card({**EXAMPLE, "key": f"inbox/1/{evil}", "label": evil, "reason": {"code": "X", "message": evil}})
    html = templates("key", "stack", "http://here").get_template("parts/card.html").render(card=shown)
    assert "<img src=x" not in html
    assert html.count("&lt;img src=x") >= 3
    (training,) = plots.trainings(
        progress("x", epochs={f"k-{progress('x').run}-train-1": [Epoch("j", 1, 2, {"train_loss": 1.0}, evil)]})
    )
    assert "onerror" not in "".join(drawing for _title, drawing in training.curves)


def test_each_training_has_its_own_curves_and_a_discarded_one_its_reason_for_findings():
    run = progress("x").run
    first, second = f"k-{run}-train-1", f"k-{run}-train-2"
    found = [{"rule": "WeightUpdateRatio", "step": 0, "tensor": None, "message": "140 times its size"}]
    findings = [
        found[0] | {"status": "IssuesFound", "job": first},
        found[0] | {"status": "NoIssuesFound", "job": second},
    ]
    shown = dataclasses.replace(
        progress("x", epochs={second: [Epoch(second, 1, 2, {"train_loss": 1.0}, "")]}),
        findings=findings,
        again={first: "Training again with learning_rate_scale 0.1 (was 1)"},
    )
    parts = {"run": {"trainings": plots.trainings(shown), "over": True}, "progress": shown}
    stopped, kept = parts["run"]["trainings"]
    assert (stopped.curves, [title for title, _ in kept.curves]) == ([], ["Loss", "Accuracy"])
    shown_as = {name: templates("k", "s", "h").get_template(f"parts/{name}.html").render(**parts) for name in PARTS}
    assert shown_as["curves"].index("Training 1") < shown_as["curves"].index("learning_rate_scale 0.1")
    assert shown_as["curves"].index("learning_rate_scale 0.1") < shown_as["curves"].index("Training 2")
    assert "140 times" not in shown_as["findings"]
    assert "Nothing found by WeightUpdateRatio." in shown_as["findings"]


@pytest.mark.parametrize("count", [0, 1])
def test_without_two_objectives_there_is_nothing_to_compare(count):
    assert plots.trials([trial("a", 0.5)] * count) is None


def test_the_one_height_of_equal_objectives_is_not_rounded():
    assert ">0.8333<" in plots.trials([trial("a", 0.833333), trial("b", 0.833333)])


def test_many_windows_share_one_reading_until_it_is_old(monkeypatch):
    now, readings = [100.0], []

    def read():
        readings.append(len(readings))
        return len(readings)

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    fresh = Fresh(read, 1.0)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: fresh.get(), range(32))) == {1}
    now[0] += 5
    assert fresh.get() == 2
