"""How the report names a failure and says it in a sentence."""

import json

import pytest

DESCRIPTION = {
    "TrainingJobName": "kelpie-1-train-1",
    "TrainingJobStatus": "Failed",
    "FailureReason": 'AlgorithmError: DatasetError: 3 images cannot be read: "a.jpg", exit code: 1',
}


@pytest.mark.parametrize(
    ("raw", "error", "cause"),
    [
        (
            {"State": "TrainModel", "Error": "States.TaskFailed", "Cause": json.dumps(DESCRIPTION)},
            "TrainModelFailed",
            f"The job kelpie-1-train-1 ended Failed: {DESCRIPTION['FailureReason']}",
        ),
        (
            {"State": "TrainModel", "Error": "States.TaskFailed", "Cause": json.dumps(DESCRIPTION)[:-9]},
            "TrainModelFailed",
            None,
        ),
        (
            {
                "State": "TrainModel",
                "Error": "States.TaskFailed",
                "Cause": json.dumps({**DESCRIPTION, "Tags": "x"})[:-9],
            },
            "TrainModelFailed",
            DESCRIPTION["FailureReason"],
        ),
        (
            {"State": "TrainModel", "Error": "States.Timeout", "Cause": ""},
            "TrainModelTimedOut",
            "TrainModel ended with",
        ),
        ({"State": "PlanRun", "Error": "DatasetError", "Cause": "plain words"}, "DatasetError", "plain words"),
        ({"State": "PlanRun", "Error": "X", "Cause": "[1, 2]"}, "X", "[1, 2]"),
        ({"State": "PlanRun", "Error": "X", "Cause": '{"a": 1}'}, "X", '{"a": 1}'),
        (
            {
                "State": "TuneHyperparameters",
                "Error": "States.TaskFailed",
                "Cause": json.dumps(
                    {"HyperParameterTuningJobName": "tune-1", "HyperParameterTuningJobStatus": "Stopped"}
                ),
            },
            "TuneHyperparametersFailed",
            "The job tune-1 ended Stopped: no reason given",
        ),
    ],
)
def test_a_failure_is_named_and_said_in_a_sentence(load, raw, error, cause):
    explained = load("write_report", "failure").explain(raw)
    assert explained.error == error
    assert explained.cause
    if cause:
        assert explained.cause.startswith(cause)


def test_a_rollback_that_failed_is_told_even_after_a_long_cause(load):
    raw = {"State": "VerifyEndpoint", "Error": "E", "Cause": "x" * 100_000, "RollBack": "the endpoint is Failed"}
    explained = load("write_report", "failure").explain(raw)
    assert explained.cause.endswith("The rollback did not succeed: the endpoint is Failed")
    assert len(explained.cause) <= 4_000
