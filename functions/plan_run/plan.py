"""The plan: what an input, a data set and the stack's settings come to, before anything is paid for. Pure."""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import date
from typing import Any

import cost
import job_requests

STEPS = ("prepare", "tune", "train", "optimize", "evaluate")
STEP_OF = {
    "PrepareDataset": "prepare",
    "TuneHyperparameters": "tune",
    "TrainModel": "train",
    "OptimizeModel": "optimize",
    "EvaluateModel": "evaluate",
}
FIRST_ATTEMPT = 1
ROLLBACK_ALARMS = ("endpoint-5xx", "endpoint-latency")
"""Alarms of the template, after its NamePrefix."""


@dataclass(frozen=True)
class Stack:
    """What the template says."""

    bucket: str
    region: str
    name_prefix: str
    feature_days: int
    account: job_requests.Account


@dataclass(frozen=True)
class Found:
    """What this run found: each step's image, the data set's survey, the bundles' digests, the weights' ETag, the live
    configuration.
    """

    images: dict[str, str]
    dataset: dict[str, Any]
    training_code_sha256: str
    inference_code_sha256: str
    weights_etag: str | None
    previous_endpoint_config: str | None


def run_id_of(execution_arn: str) -> str:
    """Return the first 12 hexadecimal digits of the SHA-256 of an execution's ARN."""
    return hashlib.sha256(execution_arn.encode()).hexdigest()[:12]


def make(run_input: dict[str, Any], execution_arn: str, created_at: str, stack: Stack, found: Found) -> dict[str, Any]:
    """Return the plan of a run, as contracts/plan.schema.json has it. run_input: completed."""
    run_id = run_id_of(execution_arn)
    root = f"s3://{stack.bucket}"
    run = f"{root}/runs/{run_id}"
    features_digest = _features_digest(run_input, found, _feature_period(created_at, stack.feature_days))
    names = {
        **{step: f"{stack.name_prefix}-{run_id}-{step}-{FIRST_ATTEMPT}" for step in STEPS},
        "model": f"{stack.name_prefix}-{run_id}",
        "endpoint_config": f"{stack.name_prefix}-{run_id}",
        "endpoint": run_input["endpoint_name"],
    }
    locations = {
        "jobs": f"{run}/jobs",
        "manifest": f"{run}/jobs/{names['prepare']}/output/model/",
        "features": f"{root}/features/{features_digest}/",
        "train_checkpoints": f"{run}/checkpoints/{names['train']}/",
        "leaderboard": f"{run}/leaderboard.json",
        "optimize_checkpoints": f"{run}/checkpoints/{names['optimize']}/",
        "variants": f"{run}/checkpoints/{names['optimize']}/variants.json",
        "evaluation": f"{run}/jobs/{names['evaluate']}/output/model/evaluation.json",
        "report": f"{run}/report/index.html",
        "capture": f"{root}/capture/",
        "wheels": f"{root}/wheels/",
    }
    code = {
        "training": {
            "uri": f"{root}/{training_code_key(found.training_code_sha256)}",
            "sha256": found.training_code_sha256,
        },
        "inference": {
            "uri": f"{root}/{inference_code_key(found.inference_code_sha256).rpartition('/')[0]}/",
            "sha256": found.inference_code_sha256,
        },
    }
    made = {
        "version": 1,
        "run_id": run_id,
        "execution_arn": execution_arn,
        "created_at": created_at,
        "bucket": stack.bucket,
        "prefix": f"runs/{run_id}",
        "input": run_input,
        "dataset": found.dataset,
        "code": code,
        "images": found.images,
        "instances": run_input["instances"],
        "names": names,
        "locations": locations,
        "previous_endpoint_config": found.previous_endpoint_config,
        "deployment_config": _deployment_config(run_input, stack.name_prefix),
        "scaling": _scaling(run_input),
        "cost": cost.estimate(run_input),
    }
    return made | {"requests": job_requests.requests_of(made, stack.region, stack.account)}


def renumbered(plan: dict[str, Any], state: str, training_job: str) -> dict[str, Any]:
    """Return the plan with the next free attempt number in the name of a state's job, and in every place it leaves.

    training_job: the latest training, whose number may be higher than the plan's: ReviewDebugger counts on; or ''.
    """
    former = plan["names"][STEP_OF[state]]
    base, _, number = former.rpartition("-")
    taken = set(plan["names"].values())
    if training_job.rpartition("-")[0] == base:
        number = max(number, training_job.rpartition("-")[2], key=int)
    attempt = next(n for n in range(int(number) + 1, int(number) + len(taken) + 2) if f"{base}-{n}" not in taken)
    # A name holds the run's id, and stands for nothing else, wherever it stands.
    whole_name = re.compile(re.escape(former) + r"(?![0-9a-z-])")
    return json.loads(whole_name.sub(f"{base}-{attempt}", json.dumps(plan)))


def deploy_seconds(serving: dict[str, Any]) -> int:
    """Return how long SageMaker may take for a deploy: it wants more than all waits together, and instances take
    minutes to come."""
    return serving["startup_timeout_seconds"] + 2 * serving["bake_seconds"] + 1200


def _deployment_config(run_input: dict[str, Any], name_prefix: str) -> dict[str, Any]:
    """Return SageMaker's DeploymentConfig of an update: how traffic moves, and which alarms call it off."""
    serving = run_input["serving"]
    bake_seconds = serving["bake_seconds"]
    routing: dict[str, Any] = {"Type": serving["traffic"].upper(), "WaitIntervalInSeconds": bake_seconds}
    if serving["traffic"] == "canary":
        routing["CanarySize"] = {"Type": "CAPACITY_PERCENT", "Value": serving["canary_percent"]}
    config = {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": routing,
            "TerminationWaitInSeconds": 0,
            "MaximumExecutionTimeoutInSeconds": deploy_seconds(serving),
        }
    }
    # The stack's alarms watch its default endpoint, and without baking nothing is watched.
    watched = bake_seconds and run_input["endpoint_name"] == name_prefix
    default = [f"{name_prefix}-{alarm}" for alarm in ROLLBACK_ALARMS] if watched else []
    if alarms := serving.get("rollback_alarms", default):
        config["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": name} for name in alarms]}
    return config


def _scaling(run_input: dict[str, Any]) -> dict[str, Any]:
    """Return the requests of Application Auto Scaling: whom it lets go before an update, and, if it is on, the target
    that it gets afterwards, with its policy; and which properties of the variant an update retains then.
    """
    serving = run_input["serving"]
    variant = {
        "ServiceNamespace": "sagemaker",
        "ResourceId": f"endpoint/{run_input['endpoint_name']}/variant/{job_requests.VARIANT}",
        "ScalableDimension": "sagemaker:variant:DesiredInstanceCount",
    }
    if not serving["max_instance_count"]:
        return {"variant": variant, "retained": {}}
    capacity = {"MinCapacity": serving["instance_count"], "MaxCapacity": serving["max_instance_count"]}
    tracking = {
        "TargetValue": serving["invocations_per_instance"],
        "PredefinedMetricSpecification": {"PredefinedMetricType": "SageMakerVariantInvocationsPerInstance"},
    }
    return {
        "variant": variant,
        "target": variant | capacity,
        "policy": variant
        | {
            "PolicyName": "InvocationsPerInstance",
            "PolicyType": "TargetTrackingScaling",
            "TargetTrackingScalingPolicyConfiguration": tracking,
        },
        "retained": {
            "RetainAllVariantProperties": True,
            "ExcludeRetainedVariantProperties": [{"VariantPropertyType": "DataCaptureConfig"}],
        },
    }


def training_code_key(sha256: str) -> str:
    return f"code/training/{sha256}/sourcedir.tar.gz"


def inference_code_key(sha256: str) -> str:
    return f"code/inference/{sha256}/inference_code.tar.gz"


def _feature_period(created_at: str, feature_days: int) -> int:
    """Return in which half of feature_days, counted from the year 1, a run was planned.

    S3 deletes features feature_days after they were written, however often they are used: what runs of one half share
    is at most half of that old when one of them is planned, so that it lasts as long again.
    """
    return date.fromisoformat(created_at[:10]).toordinal() // (feature_days // 2)


def _features_digest(run_input: dict[str, Any], found: Found, period: int) -> str:
    """Return a digest of everything that the frozen features depend on, so that equal runs of a period share them."""
    model = run_input["model"]
    facts = {
        "listing": found.dataset["listing_digest"],
        "architecture": model["architecture"],
        "weights": [model["weights"], found.weights_etag],
        "image_size_px": model["image_size_px"],
        "fit": model["fit"],
        "max_unreadable": run_input["max_unreadable"],
        "data": run_input["data"],
        "code": found.training_code_sha256,
        "period": period,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
