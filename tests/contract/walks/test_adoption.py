"""What is there already is adopted: a reply that was lost, a run that was redriven."""

import pytest

from tests.contract.walks.conftest import ADOPTED_BY, CREATED, JOBS_BY_STATE, report_of


@pytest.mark.parametrize("state", JOBS_BY_STATE)
def test_a_job_that_is_there_already_is_waited_for(walk, results, plan, task_error, state):
    step, goes_on = JOBS_BY_STATE[state]
    describe = "DescribeAdoptedTuning" if step == "tune" else "DescribeAdoptedJob"
    running = {
        "CreationTime": CREATED,
        "TrainingJobName": plan["names"][step],
        "TrainingJobStatus": "InProgress",
        "SecondaryStatus": "Training",
        "HyperParameterTuningJobStatus": "InProgress",
    }
    results[describe] = [running, running, results[describe] | {"TrainingJobName": plan["names"][step]}]
    run = walk({**results, state: task_error("SageMaker.ResourceInUseException", "there already")})
    assert run.status == "SUCCEEDED"
    assert plan["names"][step] in run.requests[describe][0].values()
    assert run.path[run.path.index(describe) - 2] == state
    last = len(run.path) - 1 - run.path[::-1].index(describe)
    assert run.path[last + 2] == goes_on
    assert (
        run.output["model_data"] == results["OptimizeModel"]["ModelArtifacts"]["S3ModelArtifacts"]
        or state == "TrainModel"
    )


@pytest.mark.parametrize("state", JOBS_BY_STATE)
@pytest.mark.parametrize("status", ["Failed", "Stopped"])
def test_an_adopted_job_that_does_not_complete_fails_the_run(walk, results, task_error, state, status):
    results[state] = task_error("SageMaker.ResourceInUseException", "there already")
    ended = {"CreationTime": CREATED, "FailureReason": "no luck"}
    results["DescribeAdoptedJob"] = {
        **ended,
        "TrainingJobName": "j",
        "TrainingJobStatus": status,
        "SecondaryStatus": status,
    }
    results["DescribeAdoptedTuning"] = {**ended, "HyperParameterTuningJobStatus": status}
    run = walk(results)
    assert run.status == "FAILED"
    if status == "Failed":
        assert report_of(run)["State"] == state
        assert "no luck" in report_of(run)["Cause"]


@pytest.mark.parametrize("state", JOBS_BY_STATE)
@pytest.mark.parametrize("status", ["Failed", "Stopped"])
def test_a_redriven_run_tries_again_under_the_next_number_what_had_ended_before(
    redriven, results, plan, plan_module, task_error, state, status
):
    step, _goes_on = JOBS_BY_STATE[state]
    ended = {"CreationTime": CREATED, "TrainingJobName": "j", "TrainingJobStatus": status, "SecondaryStatus": status}
    results["DescribeAdoptedJob"] = ended
    results["DescribeAdoptedTuning"] = {"CreationTime": CREATED, "HyperParameterTuningJobStatus": status}
    renamed = plan_module.renumbered(results["PlanRun"]["Payload"]["plan"], state, "")
    results["PlanNextAttempt"]["Payload"]["plan"] = renamed
    results[state] = [task_error("SageMaker.ResourceInUseException"), results[state]]
    run = redriven("2026-11-22T13:00:00Z")(results)
    assert run.status == "SUCCEEDED"
    names = [
        next(value for key, value in request.items() if key.endswith("JobName")) for request in run.requests[state]
    ]
    assert names == [plan["names"][step], renamed["names"][step]]
    assert names[1].endswith("-2")
    assert run.requests["PlanNextAttempt"][0]["Payload"]["state"] == state
    assert len(run.requests["PlanNextAttempt"]) == 1


@pytest.mark.parametrize("state", JOBS_BY_STATE)
def test_a_job_that_fails_after_the_redrive_is_not_tried_again(redriven, results, task_error, state):
    results[state] = task_error("SageMaker.ResourceInUseException")
    ended = {
        "CreationTime": CREATED,
        "TrainingJobName": "j",
        "TrainingJobStatus": "Failed",
        "SecondaryStatus": "Failed",
    }
    results["DescribeAdoptedJob"] = ended
    results["DescribeAdoptedTuning"] = {"CreationTime": CREATED, "HyperParameterTuningJobStatus": "Failed"}
    run = redriven("2026-11-22T11:00:00Z")(results)
    assert run.status == "FAILED"
    assert "PlanNextAttempt" not in run.path


def test_an_adopted_training_without_an_artifact_fails_the_run(walk, results, task_error):
    results["TrainModel"] = task_error("SageMaker.ResourceInUseException")
    results["DescribeAdoptedJob"] = {
        "CreationTime": CREATED,
        "TrainingJobName": "j",
        "TrainingJobStatus": "Stopped",
        "SecondaryStatus": "Stopped",
    }
    assert report_of(walk(results))["Error"] == "JobNotCompleted"


@pytest.mark.parametrize("state", ADOPTED_BY)
def test_what_a_creation_without_a_reply_made_is_adopted(walk, results, task_error, state):
    reader, goes_on = ADOPTED_BY[state]
    run = walk({**results, state: task_error("SageMaker.SageMakerException", "Cannot create already existing")})
    assert run.status == "SUCCEEDED"
    assert run.path[run.path.index(reader) + 2] == goes_on


def test_an_update_without_a_reply_that_is_under_way_is_adopted(walk, updating, plan, task_error):
    updating["UpdateEndpoint"] = task_error(
        "SageMaker.SdkClientException", "Unable to execute HTTP request: Read timed out"
    )
    pending = {"EndpointConfigName": plan["names"]["endpoint_config"]}
    updating["ReadDeploy"] = {
        "EndpointStatus": "Updating",
        "EndpointConfigName": "former",
        "PendingDeploymentSummary": pending,
    }
    run = walk(updating)
    assert run.status == "SUCCEEDED"
    assert "RollBackEndpoint" not in run.path


@pytest.mark.parametrize("state", [*ADOPTED_BY, "UpdateEndpoint"])
@pytest.mark.parametrize("found", ["others", "nothing"])
def test_a_creation_that_was_refused_keeps_its_refusal(walk, results, updating, task_error, state, found):
    given = updating if state == "UpdateEndpoint" else results
    given[state] = task_error("SageMaker.SageMakerException", "Rate exceeded")
    for reader in ("ReadModel", "ReadEndpointConfig", "ReadDeploy"):
        given[reader] = {
            "PrimaryContainer": {"ModelDataUrl": "s3://others/model.tar.gz"},
            "ProductionVariants": [{"ModelName": "others"}],
            "EndpointConfigName": "others",
        }
        if found == "nothing":
            given[reader] = task_error("SageMaker.SageMakerException", "Could not find")
    run = walk(given)
    assert run.status == "FAILED"
    assert report_of(run)["State"] == state
    assert "Rate exceeded" in report_of(run)["Cause"]
