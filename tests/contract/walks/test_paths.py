"""Which way a run takes, and what one that fails ends with."""

import json

import pytest

from tests.contract.walks.conftest import FAILED_DESCRIPTION, FAILURE_PATH, report_of


def test_a_run_that_goes_well_visits_the_states_in_their_order(walk, results, plan, definition):
    run = walk(results)
    assert run.status == "SUCCEEDED"
    assert run.output["endpoint"] == plan["names"]["endpoint"]
    assert run.output["model_data"] == results["OptimizeModel"]["ModelArtifacts"]["S3ModelArtifacts"]
    order = list(definition["States"])
    first_visits = list(dict.fromkeys(run.path))
    assert first_visits == sorted(first_visits, key=order.index)
    assert "UpdateEndpoint" not in run.path


def test_a_run_that_asks_for_float32_pays_for_no_variants(walk, results, plan):
    plan = {**results["PlanRun"]["Payload"]["plan"], "input": {**plan["input"]}}
    plan["input"]["serving"] = {**plan["input"]["serving"], "variant": "float32"}
    results["PlanRun"]["Payload"]["plan"] = plan
    run = walk(results)
    assert run.status == "SUCCEEDED"
    assert "OptimizeModel" not in run.path
    assert run.output["model_data"] == results["TrainModel"]["ModelArtifacts"]["S3ModelArtifacts"]


@pytest.mark.parametrize("step", ["PrepareDataset", "TrainModel", "OptimizeModel", "EvaluateModel"])
@pytest.mark.parametrize("status", ["Stopped", "Failed"])
def test_a_job_that_did_not_complete_does_not_pass_for_one_that_did(walk, results, step, status):
    results[step] |= {"TrainingJobStatus": status, "SecondaryStatus": "MaxRuntimeExceeded"}
    run = walk(results)
    assert run.status == "FAILED"
    assert report_of(run)["Error"] == "JobNotCompleted"
    assert "MaxRuntimeExceeded" in report_of(run)["Cause"]
    assert run.path[-len(FAILURE_PATH) - 1 :] == [*FAILURE_PATH, "FailRun"]


TASKS_BEFORE_DEPLOY = [
    "PlanRun",
    "PrepareDataset",
    "TuneHyperparameters",
    "ChooseHyperparameters",
    "TrainModel",
    "ReviewDebugger",
    "OptimizeModel",
    "LockEndpoint",
    "EvaluateModel",
    "JudgeEvaluation",
    "RegisterModel",
    "CreateModel",
    "CreateEndpointConfig",
    "FindScaling",
    "ReleaseScaling",
    "FindEndpoint",
    "ReadEndpoint",
]


@pytest.mark.parametrize("name", TASKS_BEFORE_DEPLOY)
def test_a_failure_before_the_deploy_touches_no_endpoint(walk, updating, task_error, name):
    updating[name] = task_error("States.TaskFailed", json.dumps(FAILED_DESCRIPTION))
    run = walk(updating)
    assert (run.status, run.error, run.cause) == ("FAILED", "NamedError", "a sentence")
    explained = {
        "TuneHyperparameters": ["ExplainTrials"],
        "TrainModel": ["ReviewFailedTraining", "CanTrainingBeMended"],
    }
    explained = explained.get(name, [])
    assert run.path[run.path.index(name) + 1 :] == [*explained, *FAILURE_PATH, "FailRun"]
    assert report_of(run) == {
        "State": name,
        "Error": "States.TaskFailed",
        "Cause": json.dumps(FAILED_DESCRIPTION),
    }


def test_a_tuning_job_that_failed_ends_with_its_trials_reasons(walk, results, task_error):
    results["TuneHyperparameters"] = task_error("States.TaskFailed", '{"FailureReason": "All training jobs failed."}')
    results["ExplainTrials"] = task_error("NoTrialFinished", '{"errorMessage": "2 x out of memory"}')
    run = walk(results)
    failure = {
        "State": "TuneHyperparameters",
        "Error": "NoTrialFinished",
        "Cause": '{"errorMessage": "2 x out of memory"}',
    }
    assert report_of(run) == failure
    assert run.status == "FAILED"


def test_a_tuning_job_that_was_never_made_ends_with_its_own_error(walk, results, task_error):
    results["TuneHyperparameters"] = task_error("SageMaker.ResourceLimitExceededException", "quota")
    results["ExplainTrials"] = task_error("ResourceNotFound", "no such tuning job")
    assert report_of(walk(results))["Error"] == "SageMaker.ResourceLimitExceededException"


def test_an_error_without_a_cause_is_reported_too(walk, results, task_error):
    failure = task_error("States.Timeout")
    del failure.output["Cause"]
    run = walk({**results, "TrainModel": failure})
    assert report_of(run) == {"State": "TrainModel", "Error": "States.Timeout", "Cause": ""}


@pytest.mark.parametrize("name", ["UnlockEndpoint", "WriteReport", "Announce"])
def test_a_run_that_cannot_be_reported_is_red_and_is_not_rolled_back(walk, updating, task_error, name):
    run = walk({**updating, name: task_error("AnError", "why")})
    assert run.status == "FAILED"
    assert "RollBackEndpoint" not in run.path


@pytest.mark.parametrize(
    ("state", "error", "end"),
    [("ReviewDebugger", "TrainingStopped", "StopTraining"), ("JudgeEvaluation", "ModelRejected", "RejectModel")],
)
def test_a_verdict_against_the_model_ends_in_its_own_error(walk, results, state, error, end):
    results[state]["Payload"] |= {"verdict": "reject", "reason": "too bad"}
    results["WriteFailureReport"]["Payload"] |= {"error": error, "cause": "too bad"}
    run = walk(results)
    assert report_of(run)["Error"] == error
    assert (run.status, run.error, run.cause, run.path[-1]) == ("FAILED", error, "too bad", end)
    assert "CreateModel" not in run.path


def test_a_failed_report_and_a_failed_announcement_leave_the_run_red(walk, results, task_error):
    broken = task_error("AnyError", "any cause")
    run = walk(
        {
            **results,
            "PlanRun": task_error("InvalidInput", "why"),
            "WriteFailureReport": broken,
            "AnnounceFailure": broken,
        }
    )
    assert (run.status, run.error, run.cause) == ("FAILED", "InvalidInput", "why")
