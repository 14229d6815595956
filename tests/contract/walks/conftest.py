"""The state machine walked with given results: what every task answers in a run that goes well."""

import json

import pytest

FAILED_DESCRIPTION = {
    "TrainingJobName": "kelpie-3f2a9c0d1e4b-prepare-1",
    "TrainingJobStatus": "Failed",
    "FailureReason": "AlgorithmError: DatasetError: 3 images cannot be read, exit code: 1",
}


FAILURE_PATH = ["WriteFailureReport", "AnnounceFailure", "HowRunFailed"]


PACKAGE_ARN = "arn:aws:sagemaker:eu-west-1:123456789012:model-package/kelpie-0123456789ab/1"


CREATED = "2026-11-22T12:00:00Z"


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
    "CreateEndpointConfig": ("ReadEndpointConfig", "FindScaling"),
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
        "FindScaling": {"ScalableTargets": []},
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
        "ReadChampion": {"Body": json.dumps({"endpoint_config": "former"})},
        "ExplainTrials": {"Payload": {"job": "t", "objective": 0.9, "hyperparameters": chosen}},
        "WriteFailureReport": {"Payload": {**report, "error": "NamedError", "cause": "a sentence"}},
        "AnnounceFailure": {"FailedEntryCount": 0},
    }


@pytest.fixture
def results(plan):
    return answers(plan)


@pytest.fixture
def updating(results, plan):
    """The endpoint is there already, and scaled."""
    return {
        **results,
        "FindEndpoint": {"Endpoints": [{"EndpointName": plan["names"]["endpoint"]}]},
        "FindScaling": {"ScalableTargets": [plan["scaling"]["variant"]]},
    }


@pytest.fixture
def managed(results, make_plan):
    """The results of a run whose stack was deployed with the image of SageMaker's own rules."""
    plan = make_plan({"debugger_rules_image": "503895931360.dkr.ecr.us-east-1.amazonaws.com/rules:latest"})
    return {**results, "PlanRun": {"Payload": {"plan_uri": "s3://b/plan.json", "plan": plan}}}


@pytest.fixture
def walk(definition, interpreter):
    return lambda results: interpreter.walk(definition, {"dataset": "s3://bucket/dogs"}, results)


@pytest.fixture
def redriven(definition, interpreter):
    def redriven(redrive_time):
        context = {"RedriveCount": 1, "RedriveTime": redrive_time}
        return lambda results: interpreter.walk(definition, {"dataset": "s3://bucket/dogs"}, results, context)

    return redriven


@pytest.fixture
def task_error(interpreter):
    return interpreter.TaskError


def report_of(run):
    return run.requests["WriteFailureReport"][0]["Payload"]["failure"]


RETRAIN = {"attempt": 2, "job": "k9-0123-train-2", "checkpoints": "s3://b/runs/0123/checkpoints/k9-0123-train-2/"}


def retrain(state):
    """What a review says that asks for another training, and what the next one says."""
    following = {**RETRAIN, "hyperparameters": {"learning_rate_scale": "0.1"}}
    asks = {"verdict": "retrain", "reason": "r", "attempts": [{"attempt": 1}], "next": following}
    accepts = {"verdict": "accept", "reason": "fine", "attempts": [{"attempt": 1}, {"attempt": 2}], "next": None}
    if state == "ReviewFailedTraining":
        return {"ReviewFailedTraining": {"Payload": asks}, "ReviewDebugger": {"Payload": accepts}}
    return {"ReviewDebugger": [{"Payload": asks}, {"Payload": accepts}]}


def scaled_plan(make_plan):
    return make_plan(serving={"instance_count": 2, "max_instance_count": 5, "invocations_per_instance": 70})
