"""How a run is shown while it goes on."""

import datetime
import io

import pytest
from rich.console import Console

from kelpie.execution import StateVisit, Trial
from kelpie.graph import Node
from kelpie.progress import Progress, read_epoch
from kelpie.watch import News, describe_trial, duration, short_number, tree

VALUES = {"learning_rate": "0.0015676677195506068", "batch_size": '"64"', "eps": "5.190263017695148e-09"}
ARN = "arn:aws:states:us-east-1:123456789012:execution:kelpie:one"
AT = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)
EPOCH_LINE = "epoch 2/6 train_loss=0.4000 valid_accuracy=0.9000 learning_rate=1.0e-03\n"


def progress(status="RUNNING", visits=(), trials=(), epochs=None, path=(), findings=(), again=None):
    described = {"executionArn": ARN, "name": "one", "status": status, "startDate": AT}
    return Progress(described, list(visits), list(trials), epochs or {}, [], list(findings), list(path), again or {})


def training(given):
    return f"kelpie-{given.run}-train-1"


def test_a_finished_trial_is_one_line_with_its_objective_and_values():
    trial = Trial("kelpie-tune-1-001", "Completed", 0.95634, VALUES, 38.46)
    assert describe_trial(3, trial) == "trial 3  0.9563  batch_size=64 eps=5.19e-09 learning_rate=0.00157  38.5 s"


def test_a_trial_without_an_objective_shows_its_status():
    trial = Trial("kelpie-tune-1-002", "Failed", None, {}, None)
    assert describe_trial(1, trial).startswith("trial 1  Failed")


@pytest.mark.parametrize(("text", "shown"), [("64", "64"), ('"128"', "128"), ("1e-09", "1e-09"), ("sgd", "sgd")])
def test_numbers_are_shortened_and_words_kept(text, shown):
    assert short_number(text) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0.0 s"), (8.44, "8.4 s"), (59.9, "59.9 s"), (187, "3:07 min"), (7509, "2:05:09 h")]
)
def test_a_duration_is_said_in_the_unit_that_fits(seconds, shown):
    assert duration(seconds) == shown


def test_each_piece_of_news_is_told_once():
    news, job = News(), training(progress())
    epoch = read_epoch(job, EPOCH_LINE)
    first = news.lines(progress(visits=[StateVisit("PlanRun", AT, None)]))
    assert [line[10:] for line in first] == ["PlanRun ..."]
    visits = [StateVisit("PlanRun", AT, AT + datetime.timedelta(seconds=2)), StateVisit("TrainModel", AT, None)]
    trial = Trial("t", "Completed", 0.5, {}, 1.0)
    later = progress(visits=visits, trials=[trial], epochs={job: [epoch], "kelpie-x-tune-1-001": [epoch]})
    assert [line[10:] for line in news.lines(later)] == [
        EPOCH_LINE.strip(),
        "trial 1  0.5000    1.0 s",
        "PlanRun  2.0 s",
        "TrainModel ...",
    ]
    assert news.lines(later) == []


def test_why_a_model_is_trained_again_is_told_once_and_stands_in_the_tree_for_its_findings():
    reason = "ExplodingTensor: the loss became NaN. Training again with learning_rate_scale 0.1 (was 1)"
    found = [{"rule": "ExplodingTensor", "status": "IssuesFound", "message": "the loss became NaN", "job": "train-1"}]
    again = progress(path=[Node("TrainModel", "", "now", 1, 8.0)], findings=found, again={"train-1": reason})
    news = News()
    assert [line.strip() for line in news.lines(again)] == [reason]
    assert news.lines(again) == []
    screen = Console(file=io.StringIO(), width=200, record=True)
    screen.print(tree(again))
    assert screen.export_text().count("the loss became NaN") == 1


def test_an_epochs_numbers_are_read_and_other_lines_are_not():
    epoch = read_epoch("job", EPOCH_LINE)
    assert (epoch.number, epoch.of, epoch.values["train_loss"], epoch.values["learning_rate"]) == (2, 6, 0.4, 0.001)
    assert read_epoch("job", "final valid_accuracy=0.9 (epoch 2)") is None


def test_the_tree_has_states_trials_and_epochs_and_fits_a_small_screen():
    given = progress()
    path = [Node(f"Before{n}", "", "done", 1, 1.0) for n in range(9)]
    path += [Node("TuneHyperparameters", "", "done", 1, 70.0), Node("TrainModel", "", "now", 1, 8.0)]
    path += [Node(f"After{n}", "", "ahead", 0, None) for n in range(9)]
    trials = [Trial(f"t{n}", "Completed", n / 100, VALUES, 1.0) for n in range(40)]
    epochs = {training(given): [read_epoch("job", EPOCH_LINE)] * 30}
    found = [{"rule": "DeadRelu", "status": "IssuesFound", "message": "half of the units are dead", "job": "b"}]
    screen = Console(file=io.StringIO(), width=100, record=True)
    screen.print(tree(progress(trials=trials, epochs=epochs, path=path, findings=found)))
    lines = screen.export_text().splitlines()
    assert len(lines) <= 24
    text = "\n".join(lines)
    for shown in (
        "TuneHyperparameters  1:10 min",
        "trial 40  0.3900",
        "TrainModel  8.0 s  ...",
        "epoch 2/6",
        "DeadRelu",
    ):
        assert shown in text
    assert text.count("6 more") == 2
    assert "Before1" not in text
