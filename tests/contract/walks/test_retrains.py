"""The debugger's findings steer the run: another training, or the end of it."""

import pytest

from tests.contract.conftest import load_function_module
from tests.contract.walks.conftest import CREATED, RETRAIN, report_of, retrain


@pytest.mark.parametrize("state", ["ReviewDebugger", "ReviewFailedTraining"])
def test_another_training_has_a_name_and_checkpoints_of_its_own(walk, results, plan, task_error, state):
    first = results["TrainModel"]
    if state == "ReviewFailedTraining":
        first = task_error("States.TaskFailed", "the loss became nan")
    run = walk({**results, **retrain(state), "TrainModel": [first, results["TrainModel"]]})
    assert run.status == "SUCCEEDED"
    one, other = run.requests["TrainModel"]
    assert (one["TrainingJobName"], other["TrainingJobName"]) == (plan["names"]["train"], RETRAIN["job"])
    assert other["CheckpointConfig"]["S3Uri"] == RETRAIN["checkpoints"] != one["CheckpointConfig"]["S3Uri"]
    assert other["HyperParameters"]["learning_rate_scale"] == "0.1"
    assert [review["Payload"]["attempts"] for review in run.requests["ReviewDebugger"]][-1] == [{"attempt": 1}]
    assert run.output["attempts"] == [{"attempt": 1}, {"attempt": 2}]


def test_an_adopted_training_that_the_debugger_stopped_is_mended_too(walk, results, task_error):
    in_use = task_error("SageMaker.ResourceInUseException")
    failed = {"TrainingJobName": "j", "TrainingJobStatus": "Failed", "SecondaryStatus": "Failed"}
    results["DescribeAdoptedJob"] = {"CreationTime": CREATED, **failed}
    reviews = retrain("ReviewFailedTraining")
    run = walk({**results, **reviews, "TrainModel": [in_use, results["TrainModel"]]})
    assert run.status == "SUCCEEDED"


def test_a_redriven_run_trains_again_under_a_name_that_no_job_has(redriven, results, plan_module, task_error):
    """train-1 was stopped, the redrive's train-2 is not good enough: what follows is neither of them."""
    stopped = {"TrainingJobName": "j", "TrainingJobStatus": "Stopped", "SecondaryStatus": "Stopped"}
    results["DescribeAdoptedJob"] = {"CreationTime": CREATED, **stopped}
    results["PlanNextAttempt"]["Payload"]["plan"] = plan_module.renumbered(
        results["PlanRun"]["Payload"]["plan"], "TrainModel", ""
    )
    results["TrainModel"] = [task_error("SageMaker.ResourceInUseException"), results["TrainModel"]]
    again = redriven("2026-11-22T13:00:00Z")
    steering = load_function_module("review_debugger", "steering")
    training = steering.Attempt(**again(results).requests["ReviewDebugger"][0]["Payload"]["training"])
    asks, accepts = retrain("ReviewDebugger")["ReviewDebugger"]
    asks["Payload"]["next"] = vars(steering._next(training, {"learning_rate_scale": "0.1"}))
    run = again({**results, "ReviewDebugger": [asks, accepts]})
    assert run.status == "SUCCEEDED"
    assert [request["TrainingJobName"][-8:] for request in run.requests["TrainModel"]] == [
        "-train-1",
        "-train-2",
        "-train-3",
    ]
    assert [review["Payload"]["training"]["attempt"] for review in run.requests["ReviewDebugger"]] == [1, 2]


def test_a_training_that_cannot_be_mended_ends_with_its_finding(walk, results, task_error):
    results["TrainModel"] = task_error("States.TaskFailed", "the loss became nan")
    results["ReviewFailedTraining"] = {"Payload": {"verdict": "stop", "reason": "ExplodingTensor", "attempts": []}}
    run = walk(results)
    assert (report_of(run)["Error"], report_of(run)["Cause"]) == ("TrainingStopped", "ExplodingTensor")
    assert not {"LockEndpoint", "CreateModel"} & set(run.path)


def test_the_managed_debugger_is_asked_for_only_where_the_stack_has_its_image(walk, results, managed):
    (own,) = walk(results).requests["TrainModel"]
    assert not {"DebugHookConfig", "DebugRuleConfigurations"} & set(own)
    waits = {"Payload": {"verdict": "wait"}}
    run = walk({**managed, "ReviewDebugger": [waits, results["ReviewDebugger"]]})
    assert run.status == "SUCCEEDED"
    (request,) = run.requests["TrainModel"]
    assert {*request} - {*own} == {"DebugHookConfig", "DebugRuleConfigurations", "TensorBoardOutputConfig"}
    assert "WaitForManagedRules" in run.path


def test_an_account_that_is_closed_to_the_debugger_is_told_what_to_turn_off(walk, results, managed, task_error):
    refused = task_error("SageMaker.AmazonSageMakerException", "no longer open to new customers")
    run = walk({**managed, "TrainModel": refused})
    assert report_of(run)["Error"] == "ManagedDebuggerRefused"
    assert "ManagedDebuggerRulesImageUri" in report_of(run)["Cause"]
    assert "no longer open to new customers" in report_of(run)["Cause"]
    run = walk({**results, "TrainModel": refused})
    assert report_of(run)["Error"] == "SageMaker.AmazonSageMakerException"
