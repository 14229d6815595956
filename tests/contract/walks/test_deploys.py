"""From the lock to the verified endpoint, and back: who may deploy, what is waited for, what is restored."""

import json

import pytest

from tests.contract.walks.conftest import LOCKED, TAKEN, report_of, scaled_plan


@pytest.mark.parametrize("found", [[], [{"EndpointName": "other"}], [{"EndpointName": "a"}, {"EndpointName": "b"}]])
def test_an_endpoint_that_no_page_lists_is_created(walk, results, found):
    pages = [{"Endpoints": found, "NextToken": "more"}, {"Endpoints": found}]
    run = walk({**results, "FindEndpoint": pages})
    assert run.requests["FindEndpoint"][1]["NextToken"] == "more"
    assert "CreateEndpoint" in run.path
    assert "UpdateEndpoint" not in run.path


@pytest.mark.parametrize("others", [0, 1, 2])
def test_an_endpoint_that_is_listed_is_updated(walk, updating, others):
    updating["FindEndpoint"]["Endpoints"] += [{"EndpointName": f"other-{number}"} for number in range(others)]
    run = walk(updating)
    assert run.status == "SUCCEEDED"
    assert "UpdateEndpoint" in run.path
    assert "CreateEndpoint" not in run.path


@pytest.mark.parametrize("status", ["Updating", "Creating", "Failed", "Deleting", "OutOfService"])
def test_an_endpoint_that_is_not_in_service_is_left_alone(walk, updating, status):
    updating["ReadEndpoint"] = {"EndpointStatus": status, "EndpointConfigName": "former"}
    run = walk(updating)
    assert run.status == "FAILED"
    assert report_of(run)["Error"] == "EndpointNotInService"
    assert status in report_of(run)["Cause"]
    assert not {"UpdateEndpoint", "RollBackEndpoint", "DeleteEndpoint"} & set(run.path)


def test_sagemakers_own_maintenance_is_waited_for(walk, updating):
    maintained = {"EndpointStatus": "SystemUpdating", "EndpointConfigName": "former"}
    run = walk({**updating, "ReadEndpoint": [maintained, maintained, updating["ReadEndpoint"]]})
    assert run.status == "SUCCEEDED"
    assert run.path.count("WaitForFreeEndpoint") == 2


def test_the_last_change_of_its_size_is_waited_for(walk, updating):
    growing = {"EndpointStatus": "Updating", "EndpointConfigName": "former"}
    run = walk({**updating, "ReadEndpoint": [growing, updating["ReadEndpoint"]]})
    assert run.status == "SUCCEEDED"
    replaced = {**growing, "PendingDeploymentSummary": {"EndpointConfigName": "somebody's"}}
    run = walk({**updating, "ReadEndpoint": replaced})
    assert report_of(run)["Error"] == "EndpointNotInService"
    assert "WaitForFreeEndpoint" not in run.path


def test_auto_scaling_is_released_before_the_update_and_registered_once_it_is_verified(walk, updating, make_plan):
    plan = scaled_plan(make_plan)
    updating["PlanRun"]["Payload"]["plan"] = plan
    run = walk(updating)
    assert run.status == "SUCCEEDED"
    order = ["ReleaseScaling", "UpdateEndpoint", "VerifyEndpoint", "RegisterScaling", "ScaleByInvocations"]
    assert [state for state in run.path if state in order] == order
    (target,), (policy,) = run.requests["RegisterScaling"], run.requests["ScaleByInvocations"]
    assert target["ResourceId"] == f"endpoint/{plan['names']['endpoint']}/variant/AllTraffic"
    assert (target["MinCapacity"], target["MaxCapacity"]) == (2, 5)
    tracking = policy["TargetTrackingScalingPolicyConfiguration"]
    assert tracking["TargetValue"] == 70
    (update,) = run.requests["UpdateEndpoint"]
    assert update["RetainAllVariantProperties"] is True
    (config,) = run.requests["CreateEndpointConfig"]
    assert config["ProductionVariants"][0]["VariantName"] == target["ResourceId"].rpartition("/")[2]


def test_an_endpoint_that_is_not_scaled_is_not_released(walk, updating):
    run = walk({**updating, "FindScaling": {"ScalableTargets": []}})
    assert (run.status, "ReleaseScaling" in run.path) == ("SUCCEEDED", False)


def test_without_auto_scaling_what_is_left_of_it_is_released_and_nothing_registered(walk, updating, task_error):
    not_there = task_error("ApplicationAutoScaling.ObjectNotFoundException")
    for released in ({}, not_there):
        run = walk({**updating, "ReleaseScaling": released})
        assert run.status == "SUCCEEDED"
        assert "RegisterScaling" not in run.path
        assert "RetainAllVariantProperties" not in run.requests["UpdateEndpoint"][0]


@pytest.mark.parametrize("state", ["RegisterScaling", "ScaleByInvocations"])
def test_scaling_that_cannot_be_registered_is_red_and_takes_no_verified_model_back(
    walk, updating, make_plan, task_error, state
):
    updating["PlanRun"]["Payload"]["plan"] = scaled_plan(make_plan)
    run = walk({**updating, state: task_error("ApplicationAutoScaling.ValidationException")})
    assert run.status == "FAILED"
    assert report_of(run)["State"] == state
    assert "RollBackEndpoint" not in run.path


def test_maintenance_is_not_waited_for_without_end(walk, updating):
    run = walk({**updating, "ReadEndpoint": {"EndpointStatus": "SystemUpdating", "EndpointConfigName": "former"}})
    assert report_of(run)["Error"] == "EndpointNotInService"


def test_a_run_waits_for_the_lock_of_another(walk, results):
    run = walk({**results, "LockEndpoint": [{"Payload": TAKEN}, {"Payload": TAKEN}, {"Payload": LOCKED}]})
    assert run.status == "SUCCEEDED"
    assert run.path.count("WaitForLock") == 2
    assert run.path.index("EvaluateModel") > run.path.index("WaitForLock")
    assert "RecoverDeploy" not in run.path


def test_a_run_does_not_wait_for_the_lock_without_end(walk, results):
    results["PlanRun"]["Payload"]["plan"]["input"]["serving"]["lock_wait_seconds"] = 600
    run = walk({**results, "LockEndpoint": {"Payload": TAKEN}})
    assert report_of(run)["Error"] == "EndpointLocked"
    assert "another" in report_of(run)["Cause"]
    assert "EvaluateModel" not in run.path


def test_what_a_dead_owner_of_the_lock_left_is_recovered_before_anything_else(walk, results, task_error):
    results["LockEndpoint"] = {"Payload": {**LOCKED, "left_by": "arn:dead"}}
    run = walk(results)
    assert run.requests["RecoverDeploy"][0]["Payload"] == {"detail": {"executionArn": "arn:dead"}}
    assert run.status == "SUCCEEDED"
    run = walk({**results, "RecoverDeploy": task_error("ChampionNotRestored", "why")})
    assert report_of(run)["Error"] == "ChampionNotRestored"
    assert "EvaluateModel" not in run.path


def test_the_lock_is_given_back_when_the_endpoint_is_verified(walk, updating):
    run = walk(updating)
    assert run.path.index("UnlockEndpoint") == run.path.index("VerifyEndpoint") + 2
    assert run.path[run.path.index("VerifyEndpoint") + 1] == "IsScalingAskedFor"
    assert [run.requests[name][0]["Payload"]["action"] for name in ("LockEndpoint", "UnlockEndpoint")] == [
        "lock",
        "unlock",
    ]


def test_a_silent_rollback_is_seen(walk, updating):
    updating["DescribeEndpoint"] = [
        {"EndpointStatus": "Updating", "EndpointConfigName": "former"},
        {"EndpointStatus": "InService", "EndpointConfigName": "former"},
    ]
    run = walk(updating)
    assert report_of(run)["Error"] == "EndpointRolledBack"
    assert "former" in report_of(run)["Cause"]
    assert "RestoreEndpoint" not in run.path
    assert "VerifyEndpoint" not in run.path


@pytest.mark.parametrize("status", ["Failed", "OutOfService", "UpdateRollbackFailed", "Deleting"])
def test_waiting_stops_on_any_terminal_status(walk, results, plan, status):
    config = plan["names"]["endpoint_config"]
    results["DescribeEndpoint"] = {
        "EndpointStatus": status,
        "EndpointConfigName": config,
        "FailureReason": "The container did not pass the ping health check.",
    }
    results["CheckRollBack"] = {"EndpointStatus": status, "EndpointConfigName": config}
    run = walk(results)
    assert report_of(run)["Error"] == "EndpointFailed"
    assert "ping health check" in report_of(run)["Cause"]
    assert run.path.count("WaitForEndpoint") == 1
    assert "DeleteEndpoint" in run.path


def test_waiting_has_a_deadline_and_so_has_the_rollback(walk, updating):
    stuck = {"EndpointStatus": "Updating", "EndpointConfigName": "former"}
    run = walk({**updating, "DescribeEndpoint": stuck, "CheckRollBack": stuck})
    failure = report_of(run)
    assert failure["Error"] == "EndpointTimedOut"
    assert "after 3600 s" in failure["Cause"]
    assert "is Updating on former" in failure["RollBack"]
    assert 100 < run.path.count("WaitForEndpoint") < 400


def test_a_wrong_answer_restores_the_former_configuration_and_waits_for_it(walk, updating, plan, task_error):
    config = plan["names"]["endpoint_config"]
    updating["VerifyEndpoint"] = task_error("EndpointAnswersDiffer", '{"errorMessage": "wrong"}')
    updating["CheckRollBack"] = [
        {"EndpointStatus": "InService", "EndpointConfigName": config},
        {"EndpointStatus": "Updating", "EndpointConfigName": config},
        {"EndpointStatus": "InService", "EndpointConfigName": "former"},
    ]
    run = walk(updating)
    (request,) = run.requests["RestoreEndpoint"]
    assert request == {"EndpointName": plan["names"]["endpoint"], "EndpointConfigName": "former"}
    assert report_of(run)["Error"] == "EndpointAnswersDiffer"
    assert "RollBack" not in report_of(run)
    assert run.status == "FAILED"


def test_a_wrong_answer_of_a_new_endpoint_deletes_it(walk, results, plan, task_error):
    config = plan["names"]["endpoint_config"]
    results["VerifyEndpoint"] = task_error("EndpointAnswersDiffer", "wrong")
    results["CheckRollBack"] = {"EndpointStatus": "InService", "EndpointConfigName": config}
    run = walk(results)
    assert run.requests["DeleteEndpoint"] == [{"EndpointName": plan["names"]["endpoint"]}]
    assert run.status == "FAILED"


def test_a_restored_configuration_that_does_not_come_back_is_told_and_not_tried_for_ever(
    walk, updating, plan, task_error
):
    config = plan["names"]["endpoint_config"]
    updating["VerifyEndpoint"] = task_error("EndpointAnswersDiffer", "wrong")
    updating["CheckRollBack"] = {"EndpointStatus": "InService", "EndpointConfigName": config}
    run = walk(updating)
    assert len(run.requests["RestoreEndpoint"]) == 1
    assert report_of(run)["Error"] == "EndpointAnswersDiffer"
    assert config in report_of(run)["RollBack"]


def test_a_verification_whose_reply_is_lost_once_the_champion_has_moved_is_not_taken_back(
    walk, updating, make_plan, task_error
):
    plan = scaled_plan(make_plan)
    updating["PlanRun"]["Payload"]["plan"] = plan
    champion = {"Body": json.dumps({"endpoint_config": plan["names"]["endpoint_config"]})}
    for error in ("Lambda.SdkClientException", "States.Timeout", "LockLost"):
        run = walk({**updating, "VerifyEndpoint": task_error(error), "ReadChampion": champion})
        assert run.status == "SUCCEEDED"
        assert "RollBackEndpoint" not in run.path
        assert run.path[run.path.index("IsChampionOurs") + 1 :][:2] == ["IsScalingAskedFor", "RegisterScaling"]
    (request,) = run.requests["ReadChampion"]
    assert request == {"Bucket": plan["bucket"], "Key": f"endpoints/{plan['names']['endpoint']}/champion.json"}


def test_a_champion_whose_endpoint_somebody_has_changed_is_neither_taken_back_nor_green(
    walk, updating, plan, task_error
):
    champion = {"Body": json.dumps({"endpoint_config": plan["names"]["endpoint_config"]})}
    run = walk({**updating, "VerifyEndpoint": task_error("EndpointConfigMismatch"), "ReadChampion": champion})
    assert report_of(run)["Error"] == "EndpointConfigMismatch"
    assert "RollBackEndpoint" not in run.path


def test_an_endpoint_without_a_champion_is_rolled_back(walk, updating, task_error):
    missing = task_error("S3.NoSuchKeyException")
    run = walk({**updating, "VerifyEndpoint": task_error("LockLost", "why"), "ReadChampion": missing})
    assert report_of(run)["Error"] == "LockLost"
    assert "RollBackEndpoint" in run.path


@pytest.mark.parametrize("error", ["S3.S3Exception", "States.Timeout"])
def test_where_the_champion_cannot_be_read_nothing_is_taken_back_before_recover_deploy_reads_it(
    walk, updating, task_error, error
):
    run = walk({**updating, "VerifyEndpoint": task_error("LockLost", "why"), "ReadChampion": task_error(error)})
    assert (run.status, report_of(run)["Error"]) == ("FAILED", "LockLost")
    assert not {"RollBackEndpoint", "UnlockEndpoint"} & set(run.path)


@pytest.mark.parametrize("name", ["CheckRollBack", "RestoreEndpoint", "DeleteEndpoint"])
@pytest.mark.parametrize("there_already", [True, False])
def test_a_rollback_that_fails_keeps_the_first_error(walk, updating, results, plan, task_error, name, there_already):
    given = updating if there_already else results
    given["VerifyEndpoint"] = task_error("EndpointAnswersDiffer", "wrong")
    given["CheckRollBack"] = {"EndpointStatus": "InService", "EndpointConfigName": plan["names"]["endpoint_config"]}
    given[name] = task_error("SageMaker.SageMakerException", "throttled")
    run = walk(given)
    assert run.status == "FAILED"
    assert report_of(run)["Error"] == "EndpointAnswersDiffer"
    if name in run.requests:
        assert "throttled" in report_of(run)["RollBack"]


def test_an_endpoint_of_others_is_neither_deleted_nor_restored(walk, results, task_error):
    results["CreateEndpoint"] = task_error("SageMaker.SageMakerException", "Cannot create already existing endpoint")
    theirs = {"EndpointStatus": "InService", "EndpointConfigName": "somebody-elses"}
    run = walk({**results, "ReadDeploy": theirs, "CheckRollBack": theirs})
    assert run.status == "FAILED"
    assert not {"DeleteEndpoint", "RestoreEndpoint"} & set(run.path)
