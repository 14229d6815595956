"""Inputs that are refused before anything is paid for, and what is said of them."""

import fastjsonschema
import pytest

from tests.unit.functions.plan_run.conftest import BUCKET, DATASET, FROM_SCRATCH


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("dogs", ["JSON object", '"dogs"']),
        (None, ["JSON object", "null"]),
        ([1], ["JSON object", "[1]"]),
        ({}, ["dataset is missing"]),
        ({"dataset": 3}, ["dataset: 3 is not allowed", "string"]),
        ({"dataset": "/home/dogs"}, ["dataset", "/home/dogs", "s3://"]),
        ({"dataset": DATASET, "tunning": {}}, ["unknown key tunning", "did you mean tuning?"]),
        ({"dataset": DATASET, "tuning": {"max_job": 3}}, ["unknown key tuning.max_job", "did you mean max_jobs?"]),
        ({"dataset": DATASET, "zzz": 1}, ["unknown key zzz", "known keys are"]),
        ({"dataset": DATASET, "tuning": {"max_jobs": 0}}, ["tuning.max_jobs", "0 is not allowed", "1 to 500"]),
        ({"dataset": DATASET, "tuning": {"max_jobs": "6"}}, ["tuning.max_jobs", '"6"', "whole number"]),
        ({"dataset": DATASET, "tuning": {"max_jobs": 2.5}}, ["tuning.max_jobs", "2.5"]),
        ({"dataset": DATASET, "tuning": {"strategy": "Grid"}}, ["tuning.strategy", '"Grid"', "Bayesian, Random"]),
        ({"dataset": DATASET, "model": {"dropout": 0.99}}, ["model.dropout", "0.99", "0 to 0.95"]),
        ({"dataset": DATASET, "max_unreadable": -1}, ["max_unreadable", "-1", "0 or more"]),
        # SageMaker's RandomSeed has 32 bits, one of them for the sign.
        ({"dataset": DATASET, "seed": 2**31}, ["seed", "2147483648 is not allowed", "0 to 2147483647"]),
        ({"dataset": DATASET, "training": 3}, ["training", "3", "object"]),
        ({"dataset": DATASET, "debugger": {"enabled": "yes"}}, ["debugger.enabled", '"yes"', "true or false"]),
        ({"dataset": DATASET, "debugger": {"parameters": {"Overfitting": {}}}}, ["debugger.parameters", "Overfitting"]),
        (
            {"dataset": DATASET, "debugger": {"parameters": {"Overfit": {"patiens": 2}}}},
            ["debugger.parameters.Overfit", "patiens"],
        ),
        (
            {"dataset": DATASET, "debugger": {"parameters": {"Overfit": {"patience": 0}}}},
            ["debugger.parameters.Overfit.patience", "0"],
        ),
        (
            {"dataset": DATASET, "debugger": {"actions": {"StepOutlier": "regularise"}}},
            ["debugger.actions.StepOutlier", "regularise", "warn"],
        ),
        ({"dataset": DATASET, "model": {"weights": "best"}}, ["model.weights", '"best"']),
        (
            {"dataset": DATASET, "tuning": {"ranges": {"eps": {"min": 0}}}},
            ["tuning.ranges.eps.min", "0 is not allowed", "above 0 and at most 1"],
        ),
        (
            {"dataset": DATASET, "tuning": {"ranges": {"learning_rate": {"min": 0.5}}}},
            ["tuning.ranges.learning_rate", "min 0.5 must be below max 0.1"],
        ),
        (
            {"dataset": DATASET, "tuning": {"ranges": {"eps": {"max": 1, "scaling": "ReverseLogarithmic"}}}},
            ["tuning.ranges.eps", "ReverseLogarithmic", "below 1"],
        ),
        ({"dataset": DATASET, "tuning": {"ranges": {"batch_size": []}}}, ["tuning.ranges.batch_size", "1 to 30"]),
        (
            {"dataset": DATASET, "model": {"weights": "none"}, "tuning": {"mode": "frozen_features"}},
            ["frozen_features", "model.weights is 'none'"],
        ),
        ({"dataset": DATASET, "serving": {"traffic": "canary"}}, ["serving.instance_count is 1", "all_at_once"]),
        (
            {"dataset": DATASET, "serving": {"bake_seconds": 901}},
            ["serving.bake_seconds 901", "take 3602 s", "after 3600 s", "EndpointDeadlineSeconds"],
        ),
        ({"dataset": DATASET, "endpoint_name": "other"}, ["endpoint_name", '"other"', "'kelpie-'"]),
        (
            {"dataset": DATASET, "instances": {"endpoint": "ml.inf2.xlarge"}},
            ["instances.endpoint", "ml.inf2.xlarge", "Inferentia"],
        ),
        ({"dataset": DATASET, "model": {"weights": f"s3://{BUCKET}/none.pth"}}, ["model.weights", "none.pth", "404"]),
        ({"dataset": DATASET}, ["tuning.ranges.batch_size holds 128", "only 4 images"]),
        (
            {"dataset": DATASET, "training": {"instance_count": 3}, "tuning": {"ranges": {"batch_size": [2, 4]}}},
            ["tuning.ranges.batch_size holds 2", "training.instance_count 3", "at least 3"],
        ),
    ],
)
@pytest.mark.usefixtures("dogs")
def test_input_that_cannot_be_run_is_refused_by_key_value_and_what_is_allowed(refused, given, said):
    if isinstance(given, dict) and "none.pth" in str(given):
        given = {**given, "tuning": {"ranges": {"batch_size": [2]}}}
    name, message = refused(given)
    assert name == "InvalidInput"
    for part in said:
        assert part in message


@pytest.mark.usefixtures("dogs")
def test_a_whole_number_may_be_written_with_a_point(plan_run):
    given = {**FROM_SCRATCH, "training": {"epochs": 3.0}}
    assert plan_run(given)["plan"]["requests"]["train"]["HyperParameters"]["epochs"] == "3"


@pytest.mark.usefixtures("dogs")
def test_there_are_never_more_trials_at_a_time_than_trials(plan_run):
    plan = plan_run({**FROM_SCRATCH, "tuning": {"max_jobs": 1, "ranges": {"batch_size": [2]}}})["plan"]
    assert plan["requests"]["tune"]["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxParallelTrainingJobs"] == 1


def test_every_default_of_the_input_passes_its_own_contract(load, example):
    run_input = load("plan_run", "run_input")
    instances = dict.fromkeys(("prepare", "tune", "train", "evaluate", "endpoint"), "ml.m5.large")
    completed = run_input.complete(
        example("execution_input"),
        "kelpie",
        instances,
        {"max_instance_count": 0, "invocations_per_instance": 600},
    )
    schema = run_input.documents.schema("execution_input")
    fastjsonschema.compile(schema, use_default=False)(completed)
    assert completed["tuning"]["ranges"]["learning_rate"] == {"min": 1e-05, "max": 0.1, "scaling": "Logarithmic"}
    assert completed["tuning"]["ranges"]["batch_size"] == [64, 128]


@pytest.mark.usefixtures("dogs")
def test_nothing_is_written_for_a_run_that_is_refused(upload, refused, s3):
    upload("train/001.Affenpinscher/z.jpg", body=b"")
    refused(FROM_SCRATCH)
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix="runs/")["KeyCount"] == 0


@pytest.fixture
def without_network(app, monkeypatch):  # noqa: ARG001 - after the app has set its variables
    monkeypatch.setenv("NETWORK_ISOLATION", "true")


@pytest.mark.usefixtures("dogs", "without_network")
def test_a_run_without_a_network_is_refused_where_it_would_need_one(refused, s3, plan_run):
    given = {"dataset": DATASET, "tuning": {"ranges": {"batch_size": [2]}}}
    name, message = refused(given)
    assert name == "InvalidInput"
    assert "'default' is downloaded" in message
    name, message = refused(FROM_SCRATCH)
    assert name == "InvalidInput"
    assert f"s3://{BUCKET}/wheels/ is empty" in message
    s3.put_object(Bucket=BUCKET, Key="wheels/training/a.whl", Body=b"")
    request = plan_run(FROM_SCRATCH)["plan"]["requests"]["train"]
    assert request["EnableNetworkIsolation"] is True
