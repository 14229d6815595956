from datetime import UTC, datetime, timedelta

import pytest

STARTED = datetime(2026, 11, 22, 12, tzinfo=UTC)
VALUES = {"learning_rate": "0.00123", "eps": "3e-09", "weight_decay": "0.01", "batch_size": "64"}


@pytest.fixture
def app(load):
    return load("choose_hyperparameters")


def trial(name, objective=None, status="Completed", reason=None, **values):
    summary = {
        "TrainingJobName": name,
        "TrainingJobStatus": status,
        "TunedHyperParameters": VALUES | values,
        "TrainingStartTime": STARTED,
        "TrainingEndTime": STARTED + timedelta(seconds=81.5),
    }
    if objective is not None:
        metric = {"Type": "Maximize", "MetricName": "valid:accuracy", "Value": objective}
        summary["FinalHyperParameterTuningJobObjectiveMetric"] = metric
    return summary | ({"FailureReason": reason} if reason else {})


class Pages:
    """SageMaker's list of a tuning job's trials, one a page."""

    def __init__(self, *summaries):
        self.summaries = summaries

    def get_paginator(self, operation):
        assert operation == "list_training_jobs_for_hyper_parameter_tuning_job"
        return self

    def paginate(self, HyperParameterTuningJobName):  # noqa: N803 - AWS's name
        assert HyperParameterTuningJobName
        return [{"TrainingJobSummaries": []}, *({"TrainingJobSummaries": [summary]} for summary in self.summaries)]


@pytest.fixture
def choose(app, event, context, monkeypatch, s3):
    def choose(*summaries):
        clients = {"s3": s3, "sagemaker": Pages(*summaries)}
        monkeypatch.setattr(app, "client", clients.__getitem__)
        return app.handler(event, context)

    return choose


def test_the_best_finished_trial_is_chosen_with_its_values_unchanged(choose, plan, get):
    best = trial("t-2", 0.95, learning_rate="0.0009765625")
    answer = choose(trial("t-1", 0.9), best, trial("t-3", 0.99, status="Stopped"), trial("t-4", status="Failed"))
    assert answer == {"job": "t-2", "objective": 0.95, "hyperparameters": best["TunedHyperParameters"]}
    leaderboard = get(plan["locations"]["leaderboard"])
    assert [(one["rank"], one["job"]) for one in leaderboard["trials"]] == [
        (1, "t-2"),
        (2, "t-1"),
        (None, "t-3"),
        (None, "t-4"),
    ]
    assert leaderboard["trials"][0]["seconds"] == 81.5


def test_equal_trials_are_decided_by_name(choose):
    assert choose(trial("t-2", 0.9), trial("t-1", 0.9))["job"] == "t-1"


def test_an_objective_of_nought_is_an_objective(choose):
    assert choose(trial("t-1", 0.0), trial("t-2", status="Failed"))["job"] == "t-1"


@pytest.mark.parametrize("objective", [float("nan"), float("inf")])
def test_an_objective_that_is_no_number_is_none(choose, objective):
    assert choose(trial("t-1", objective), trial("t-2", 0.1))["job"] == "t-2"


def test_trials_that_all_failed_say_why(choose, app, plan, get):
    memory, diverged = "AlgorithmError: out of memory", "AlgorithmError: the loss became NaN"
    trials = [trial("t-1", None, "Failed", memory), trial("t-2", None, "Failed", diverged)]
    with pytest.raises(app.NoTrialFinished) as caught:
        choose(*trials, trial("t-3", None, "Failed", diverged), trial("t-4"))
    assert "none of the 4 trials" in str(caught.value)
    assert f"2 x {diverged}" in str(caught.value)
    assert f"1 x {memory}" in str(caught.value)
    assert "without the metric valid:accuracy" in str(caught.value)
    assert get(plan["locations"]["leaderboard"])["chosen"] is None


def test_a_tuning_job_without_trials_is_told(choose, app):
    with pytest.raises(app.NoTrialFinished, match="started no trial"):
        choose()


@pytest.mark.usefixtures("s3")
def test_a_plan_that_is_missing_is_told_by_name(app, context):
    with pytest.raises(app.documents.DocumentMissing, match=r"runs/none/plan\.json"):
        app.handler({"plan_uri": "s3://kelpie-123456789012-eu-west-1/runs/none/plan.json"}, context)


def test_a_plan_of_an_unknown_version_is_refused(app, put, plan, context):
    uri = put(f"s3://{plan['bucket']}/plan.json", {**plan, "version": 2})
    with pytest.raises(app.documents.DocumentInvalid, match="version"):
        app.handler({"plan_uri": uri}, context)
