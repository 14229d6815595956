"""The state machine walked with given results: which way it takes, what it asks of SageMaker, what it ends with."""

import json
import re

import botocore.session
import botocore.validate
import pytest

FAILED_DESCRIPTION = {
    "TrainingJobName": "kelpie-3f2a9c0d1e4b-prepare-1",
    "TrainingJobStatus": "Failed",
    "FailureReason": "AlgorithmError: DatasetError: 3 images cannot be read, exit code: 1",
}
FAILURE_PATH = ["WriteFailureReport", "AnnounceFailure", "HowRunFailed"]
PACKAGE_ARN = "arn:aws:sagemaker:eu-west-1:123456789012:model-package/kelpie-0123456789ab/1"
CREATED = "2026-11-22T12:00:00Z"
CALLED = re.compile(r":(sagemaker|applicationautoscaling):(\w+)")
LOCKED = {"held": True, "owner": "this one", "left_by": "", "champion_channels": []}
TAKEN = {"held": False, "owner": "another", "left_by": "", "champion_channels": []}
JOBS_BY_STATE = {
    "PrepareDataset": ("prepare", "IsDatasetPrepared"),
    "TrainModel": ("train", "IsModelTrained"),
    "OptimizeModel": ("optimize", "IsModelOptimized"),
    "EvaluateModel": ("evaluate", "IsModelEvaluated"),
    "TuneHyperparameters": ("tune", "ChooseHyperparameters"),
}
ADOPTED_BY = {
    "CreateModel": ("ReadModel", "CreateEndpointConfig"),
    "CreateEndpointConfig": ("ReadEndpointConfig", "ReleaseScaling"),
    "CreateEndpoint": ("ReadDeploy", "WaitForEndpoint"),
}
"""Creations whose reply may be lost: who looks whether it was done, and where the run goes on if it was."""


@pytest.fixture(params=["full", "frozen_features", "weights from S3"])
def plan(request, make_plan):
    """Of a stack that leaves every option of its network and its keys out."""
    if request.param == "full":
        return make_plan(model={"weights": "none"}, serving={"variant": "fastest"})
    weights = "s3://other-bucket/resnet50.safetensors" if request.param == "weights from S3" else "default"
    return make_plan(model={"weights": weights})


@pytest.fixture
def results(plan):
    return answers(plan)


def answers(plan):
    """What every task answers in a run that goes well and creates the endpoint."""
    names, config = plan["names"], plan["names"]["endpoint_config"]
    job = {"TrainingJobStatus": "Completed", "SecondaryStatus": "Completed"}
    trained = f"{plan['locations']['jobs']}/{names['train']}/output/model.tar.gz"
    model_data = f"{plan['locations']['jobs']}/{names['optimize']}/output/model.tar.gz"
    chosen = {"learning_rate": "0.00123", "eps": "3e-09", "weight_decay": "0.01", "batch_size": "64"}
    report = {"report": plan["locations"]["report"], "summary": "s3://b/s", "error": None, "cause": None}
    returned = {**plan, "dataset": {"uri": plan["dataset"]["uri"]}}
    return {
        "PlanRun": {"Payload": {"plan_uri": "s3://b/plan.json", "plan": returned}},
        "PrepareDataset": {**job, "TrainingJobName": names["prepare"]},
        "TuneHyperparameters": {
            "HyperParameterTuningJobName": names["tune"],
            "HyperParameterTuningJobStatus": "Completed",
        },
        "ChooseHyperparameters": {"Payload": {"job": "t", "objective": 0.9, "hyperparameters": chosen}},
        "TrainModel": {
            **job,
            "TrainingJobName": names["train"],
            "ModelArtifacts": {"S3ModelArtifacts": trained},
        },
        "OptimizeModel": {
            **job,
            "TrainingJobName": names["optimize"],
            "ModelArtifacts": {"S3ModelArtifacts": model_data},
        },
        "ReviewFailedTraining": {"Payload": {"verdict": "failed"}},
        "ReviewDebugger": {"Payload": {"verdict": "accept", "reason": "fine", "attempts": [{"attempt": 1}]}},
        "LockEndpoint": {"Payload": LOCKED},
        "RecoverDeploy": {"Payload": {"outcome": "restored former"}},
        "UnlockEndpoint": {"Payload": TAKEN},
        "EvaluateModel": {**job, "TrainingJobName": names["evaluate"]},
        "JudgeEvaluation": {
            "Payload": {
                "verdict": "accept",
                "reason": "fine",
                "accuracy": 0.93,
                "data_digest": "3" * 64,
                "weights_sha256": "4" * 64,
            }
        },
        "RegisterModel": {"ModelPackageArn": PACKAGE_ARN},
        "CreateModel": {"ModelArn": "arn"},
        "CreateEndpointConfig": {"EndpointConfigArn": "arn"},
        "ReleaseScaling": {},
        "FindEndpoint": {"Endpoints": []},
        "CreateEndpoint": {"EndpointArn": "arn"},
        "ReadEndpoint": {"EndpointStatus": "InService", "EndpointConfigName": "former"},
        "UpdateEndpoint": {"EndpointArn": "arn"},
        "DescribeEndpoint": [
            {"EndpointStatus": "Creating", "EndpointConfigName": config},
            {"EndpointStatus": "InService", "EndpointConfigName": config},
        ],
        "VerifyEndpoint": {"Payload": {"verified": True}},
        "RegisterScaling": {},
        "ScaleByInvocations": {"PolicyARN": "arn", "Alarms": []},
        "WriteReport": {"Payload": report},
        "Announce": {"FailedEntryCount": 0},
        "CheckRollBack": {"EndpointStatus": "InService", "EndpointConfigName": "former"},
        "RestoreEndpoint": {"EndpointArn": "arn"},
        "DeleteEndpoint": {},
        "DescribeAdoptedJob": {
            **job,
            "TrainingJobName": "adopted",
            "CreationTime": CREATED,
            "ModelArtifacts": {"S3ModelArtifacts": model_data},
        },
        "DescribeAdoptedTuning": {"HyperParameterTuningJobStatus": "Completed", "CreationTime": CREATED},
        "PlanNextAttempt": {"Payload": {"plan_uri": "s3://b/plan.json", "plan": returned}},
        "ReadModel": {"PrimaryContainer": {"ModelDataUrl": model_data}},
        "ReadEndpointConfig": {"ProductionVariants": [{"ModelName": names["model"]}]},
        "ReadDeploy": {"EndpointStatus": "Creating", "EndpointConfigName": config},
        "ExplainTrials": {"Payload": {"job": "t", "objective": 0.9, "hyperparameters": chosen}},
        "WriteFailureReport": {"Payload": {**report, "error": "NamedError", "cause": "a sentence"}},
        "AnnounceFailure": {"FailedEntryCount": 0},
    }


@pytest.fixture
def updating(results, plan):
    """The endpoint is there already."""
    return {**results, "FindEndpoint": {"Endpoints": [{"EndpointName": plan["names"]["endpoint"]}]}}


@pytest.fixture
def walk(definition, interpreter):
    return lambda results: interpreter.walk(definition, {"dataset": "s3://bucket/dogs"}, results)


@pytest.fixture
def redriven(definition, interpreter):
    def redriven(redrive_time):
        context = {"RedriveCount": 1, "RedriveTime": redrive_time}
        return lambda results: interpreter.walk(definition, {"dataset": "s3://bucket/dogs"}, results, context)

    return redriven


def scaled_plan(make_plan):
    return make_plan(serving={"instance_count": 2, "max_instance_count": 5, "invocations_per_instance": 70})


@pytest.fixture
def task_error(interpreter):
    return interpreter.TaskError


def report_of(run):
    return run.requests["WriteFailureReport"][0]["Payload"]["failure"]


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


OPTIONS = {
    "none": {},
    "VPC": {"subnets": ("subnet-0a", "subnet-0b"), "security_groups": ("sg-0a",)},
    "key": {"key_arn": "arn:aws:kms:eu-west-1:123456789012:key/00000000-0000-0000-0000-000000000000"},
    "managed debugger": {"debugger_rules_image": "503895931360.dkr.ecr.us-east-1.amazonaws.com/rules:latest"},
    "isolation": {"isolated": True},
}


@pytest.mark.parametrize("option", [*OPTIONS, "all"])
def test_every_creation_keeps_sagemakers_api_with_each_option_of_the_stack(
    walk, results, make_plan, definition, option
):
    everything = {key: value for options in OPTIONS.values() for key, value in options.items()}
    plan = make_plan(everything if option == "all" else OPTIONS[option], serving={"variant": "fastest"})
    results["PlanRun"]["Payload"]["plan"] = plan
    run = walk(results)
    assert run.status == "SUCCEEDED"
    assert requests_checked(run, definition) >= {*JOBS_BY_STATE, *ADOPTED_BY}
    jobs = [request for state in JOBS_BY_STATE for request in run.requests[state]]
    jobs = [job.get("TrainingJobDefinition", job) for job in jobs]
    (model,) = run.requests["CreateModel"]
    in_all = option == "all"
    for one in [*jobs, model]:
        assert ("VpcConfig" in one) == (in_all or option == "VPC")
        assert one.get("EnableNetworkIsolation", False) == (in_all or option == "isolation")
    for job in jobs:
        keys = (job["ResourceConfig"].get("VolumeKmsKeyId"), job["OutputDataConfig"].get("KmsKeyId"))
        assert keys == ((everything["key_arn"],) * 2 if in_all or option == "key" else (None, None))
        pip = job.get("Environment", {}).get("PIP_FIND_LINKS")
        assert pip == ("/opt/ml/input/data/wheels" if in_all or option == "isolation" else None)
    for state in (*JOBS_BY_STATE, *ADOPTED_BY):
        (request,) = run.requests[state]
        assert request["Tags"] == [
            {"Key": "application", "Value": "kelpie"},
            {"Key": "run", "Value": plan["run_id"]},
        ]


@pytest.mark.parametrize(
    ("instance_type", "encrypted"),
    [("ml.m5.xlarge", True), ("ml.c5.large", True), ("ml.p3.2xlarge", True), ("ml.m7i.large", True)]
    + [(f"ml.{family}.xlarge", False) for family in ("m5d", "g4dn", "g5", "p4d", "c6gd", "trn1", "m5dn")],
)
def test_a_volume_that_encrypts_itself_is_given_no_key(make_plan, instance_type, encrypted):
    plan = make_plan(OPTIONS["key"], instances={"train": instance_type})
    assert ("VolumeKmsKeyId" in plan["requests"]["train"]["ResourceConfig"]) is encrypted


def test_every_request_to_aws_keeps_its_api(walk, results, updating, managed, definition, plan, make_plan, task_error):
    rolled_back = {**updating, "VerifyEndpoint": task_error("EndpointAnswersDiffer")}
    rolled_back["CheckRollBack"] = [
        {"EndpointStatus": "InService", "EndpointConfigName": plan["names"]["endpoint_config"]},
        {"EndpointStatus": "InService", "EndpointConfigName": "former"},
    ]
    deleted = {**results, "VerifyEndpoint": task_error("EndpointAnswersDiffer")}
    deleted["CheckRollBack"] = {
        "EndpointStatus": "InService",
        "EndpointConfigName": plan["names"]["endpoint_config"],
    }
    scaled = {**updating, "PlanRun": {"Payload": {"plan_uri": "s3://b/plan.json", "plan": scaled_plan(make_plan)}}}
    checked = set()
    in_use, refused = task_error("SageMaker.ResourceInUseException"), task_error("SageMaker.AmazonSageMakerException")
    adopted = {**results, **dict.fromkeys(JOBS_BY_STATE, in_use), **dict.fromkeys(ADOPTED_BY, refused)}
    for given in (results, updating, rolled_back, deleted, adopted, managed, scaled):
        checked |= requests_checked(walk(given), definition)
    assert checked == {name for name, state in definition["States"].items() if CALLED.search(state.get("Resource", ""))}


def requests_checked(run, definition):
    """Hold every request of a run to the API of SageMaker or auto scaling, and return the states that made one."""
    session, names = botocore.session.get_session(), {"applicationautoscaling": "application-autoscaling"}
    checked = set()
    for name, requests in run.requests.items():
        found = CALLED.search(definition["States"][name]["Resource"])
        if found:
            model = session.get_service_model(names.get(found[1], found[1]))
            operation = model.operation_model(found[2][0].upper() + found[2][1:])
            for request in requests:
                report = botocore.validate.ParamValidator().validate(request, operation.input_shape)
                assert not report.has_errors(), f"{name}: {report.generate_report()}"
                assert _beyond_pattern(request, operation.input_shape) == []
                checked.add(name)
    return checked


def test_jobs_carry_the_plans_hyperparameters_and_the_chosen_ones(walk, results, plan):
    run = walk(results)
    (request,) = run.requests["TrainModel"]
    chosen = results["ChooseHyperparameters"]["Payload"]["hyperparameters"]
    assert request["HyperParameters"] == {**plan["requests"]["train"]["HyperParameters"], **chosen}
    (evaluation,) = run.requests["EvaluateModel"]
    assert [channel["ChannelName"] for channel in evaluation["InputDataConfig"]] == [
        "code",
        "manifest",
        "dataset",
        "model",
    ]
    model_channel = evaluation["InputDataConfig"][-1]["DataSource"]["S3DataSource"]
    assert model_channel["S3Uri"] == results["OptimizeModel"]["ModelArtifacts"]["S3ModelArtifacts"]


RETRAIN = {"attempt": 2, "job": "k9-0123-train-2", "checkpoints": "s3://b/runs/0123/checkpoints/k9-0123-train-2/"}


def retrain(state):
    """What a review says that asks for another training, and what the next one says."""
    following = {**RETRAIN, "hyperparameters": {"learning_rate": "0.000123"}}
    asks = {"verdict": "retrain", "reason": "r", "attempts": [{"attempt": 1}], "next": following}
    accepts = {"verdict": "accept", "reason": "fine", "attempts": [{"attempt": 1}, {"attempt": 2}], "next": None}
    if state == "ReviewFailedTraining":
        return {"ReviewFailedTraining": {"Payload": asks}, "ReviewDebugger": {"Payload": accepts}}
    return {"ReviewDebugger": [{"Payload": asks}, {"Payload": accepts}]}


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
    assert other["HyperParameters"]["learning_rate"] == "0.000123"
    assert [review["Payload"]["attempts"] for review in run.requests["ReviewDebugger"]][-1] == [{"attempt": 1}]
    assert run.output["attempts"] == [{"attempt": 1}, {"attempt": 2}]


def test_an_adopted_training_that_the_debugger_stopped_is_mended_too(walk, results, task_error):
    in_use = task_error("SageMaker.ResourceInUseException")
    failed = {"TrainingJobName": "j", "TrainingJobStatus": "Failed", "SecondaryStatus": "Failed"}
    results["DescribeAdoptedJob"] = {"CreationTime": CREATED, **failed}
    reviews = retrain("ReviewFailedTraining")
    run = walk({**results, **reviews, "TrainModel": [in_use, results["TrainModel"]]})
    assert run.status == "SUCCEEDED"


def test_a_training_that_cannot_be_mended_ends_with_its_finding(walk, results, task_error):
    results["TrainModel"] = task_error("States.TaskFailed", "the loss became nan")
    results["ReviewFailedTraining"] = {"Payload": {"verdict": "stop", "reason": "ExplodingTensor", "attempts": []}}
    run = walk(results)
    assert (report_of(run)["Error"], report_of(run)["Cause"]) == ("TrainingStopped", "ExplodingTensor")
    assert not {"LockEndpoint", "CreateModel"} & set(run.path)


@pytest.fixture
def managed(results, make_plan):
    """The results of a run whose stack was deployed with the image of SageMaker's own rules."""
    plan = make_plan({"debugger_rules_image": "503895931360.dkr.ecr.us-east-1.amazonaws.com/rules:latest"})
    return {**results, "PlanRun": {"Payload": {"plan_uri": "s3://b/plan.json", "plan": plan}}}


def test_the_managed_debugger_is_asked_for_only_where_the_stack_has_its_image(walk, results, managed):
    (own,) = walk(results).requests["TrainModel"]
    assert not {"DebugHookConfig", "DebugRuleConfigurations"} & set(own)
    waits = {"Payload": {"verdict": "wait"}}
    run = walk({**managed, "ReviewDebugger": [waits, results["ReviewDebugger"]]})
    assert run.status == "SUCCEEDED"
    (request,) = run.requests["TrainModel"]
    assert {*request} - {*own} == {"DebugHookConfig", "DebugRuleConfigurations"}
    assert "WaitForManagedRules" in run.path


def test_an_account_that_is_closed_to_the_debugger_is_told_what_to_turn_off(walk, results, managed, task_error):
    refused = task_error("SageMaker.AmazonSageMakerException", "no longer open to new customers")
    run = walk({**managed, "TrainModel": refused})
    assert report_of(run)["Error"] == "ManagedDebuggerRefused"
    assert "ManagedDebuggerRulesImageUri" in report_of(run)["Cause"]
    assert "no longer open to new customers" in report_of(run)["Cause"]
    run = walk({**results, "TrainModel": refused})
    assert report_of(run)["Error"] == "SageMaker.AmazonSageMakerException"


@pytest.mark.parametrize("names", [[], ["champion"], ["champion", "champion_manifest"]])
def test_the_champion_is_evaluated_beside_the_model(walk, results, names):
    channels = [
        {**results["PlanRun"]["Payload"]["plan"]["requests"]["evaluate"]["InputDataConfig"][0], "ChannelName": name}
        for name in names
    ]
    run = walk({**results, "LockEndpoint": {"Payload": {**LOCKED, "champion_channels": channels}}})
    given = run.requests["EvaluateModel"][0]["InputDataConfig"]
    assert [channel["ChannelName"] for channel in given] == ["code", "manifest", "dataset", "model", *names]


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
    run = walk({**results, state: task_error("SageMaker.AmazonSageMakerException", "Cannot create already existing")})
    assert run.status == "SUCCEEDED"
    assert run.path[run.path.index(reader) + 2] == goes_on


def test_an_update_without_a_reply_that_is_under_way_is_adopted(walk, updating, plan, task_error):
    updating["UpdateEndpoint"] = task_error("SageMaker.AmazonSageMakerException", "Cannot update in-progress endpoint")
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
    given[state] = task_error("SageMaker.AmazonSageMakerException", "Rate exceeded")
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


@pytest.mark.parametrize(("verdict", "status"), [("accept", "Approved"), ("reject", "Rejected")])
def test_every_model_that_was_judged_is_registered_and_an_approved_one_knows_its_package(
    walk, results, plan, verdict, status
):
    results["JudgeEvaluation"]["Payload"] |= {"verdict": verdict, "reason": "so " * 1000}
    run = walk(results)
    (request,) = run.requests["RegisterModel"]
    assert request["ModelApprovalStatus"] == status
    assert len(request["ModelPackageDescription"]) == 1024
    metadata = request["CustomerMetadataProperties"]
    assert (metadata["run_id"], metadata["data_digest"]) == (plan["run_id"], "3" * 64)
    for value in metadata.values():
        assert re.fullmatch(r"[\w .:/=+\-@]{1,256}", value)
    if verdict == "accept":
        (model,) = run.requests["CreateModel"]
        assert model["PrimaryContainer"]["Environment"] == {
            "MODEL_PACKAGE_ARN": PACKAGE_ARN,
            "RAYSERVE_BACKEND_URL": "http://127.0.0.1:8001",
        }
        assert run.requests["VerifyEndpoint"][0]["Payload"]["model_package_arn"] == PACKAGE_ARN


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
    results["CreateEndpoint"] = task_error(
        "SageMaker.AmazonSageMakerException", "Cannot create already existing endpoint"
    )
    theirs = {"EndpointStatus": "InService", "EndpointConfigName": "somebody-elses"}
    run = walk({**results, "ReadDeploy": theirs, "CheckRollBack": theirs})
    assert run.status == "FAILED"
    assert not {"DeleteEndpoint", "RestoreEndpoint"} & set(run.path)


def _beyond_pattern(value, shape, path=""):
    """Members that break a pattern, an enumeration or a length, which botocore's own validator does not look at."""
    if shape.type_name == "structure":
        return [
            wrong for key, item in value.items() for wrong in _beyond_pattern(item, shape.members[key], f"{path}.{key}")
        ]
    if shape.type_name == "list":
        return [wrong for item in value for wrong in _beyond_pattern(item, shape.member, f"{path}[]")]
    if shape.type_name == "map":
        return [
            wrong
            for key, item in value.items()
            for wrong in _beyond_pattern(key, shape.key, path) + _beyond_pattern(item, shape.value, f"{path}.{key}")
        ]
    if shape.type_name != "string":
        return []
    wrong = []
    pattern = shape.metadata.get("pattern")
    # Classes of Unicode and halves of UTF-16, which Python's re does not know; `test_every_model_that_was_judged...`
    # holds the first to less.
    pattern = None if pattern and (r"\p{" in pattern or r"\uD800" in pattern) else pattern
    if pattern and not re.search(f"^(?:{pattern})$", value):
        wrong.append(f"{path}: {value!r} does not match {pattern}")
    if shape.enum and value not in shape.enum:
        wrong.append(f"{path}: {value!r} is not one of {shape.enum}")
    if not shape.metadata.get("min", 0) <= len(value) <= shape.metadata.get("max", len(value)):
        wrong.append(f"{path}: {value!r} has {len(value)} characters")
    return wrong
