"""The plan: what an input, a data set and the stack's settings come to, before anything is paid for. Pure."""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

import cost

STEPS = ("prepare", "tune", "train", "optimize", "evaluate")
STEP_OF = {
    "PrepareDataset": "prepare",
    "TuneHyperparameters": "tune",
    "TrainModel": "train",
    "TrainUnderManagedDebugger": "train",
    "OptimizeModel": "optimize",
    "EvaluateModel": "evaluate",
}
FIRST_ATTEMPT = 1
ROLLBACK_ALARMS = ("endpoint-5xx", "endpoint-latency")
"""Alarms of the template, after its NamePrefix."""
GPU_INSTANCES = ("ml.g", "ml.p")  # torchrun starts a process for each of their GPUs
MANAGED_RULES = ("ExplodingTensor", "LossNotDecreasing", "Overfit", "VanishingGradient")
STOPPING_ACTIONS = ("stop", "lower_learning_rate", "raise_learning_rate")
"""What an issue leads to that is found before the training's end, and makes the rest of it worthless."""


@dataclass(frozen=True)
class Stack:
    """What the template says."""

    bucket: str
    region: str
    name_prefix: str
    debugger_rules_image: str


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
    names = {step: f"{stack.name_prefix}-{run_id}-{step}-{FIRST_ATTEMPT}" for step in STEPS}
    locations = {
        "jobs": f"{run}/jobs",
        "manifest": f"{run}/jobs/{names['prepare']}/output/model/",
        "features": f"{root}/features/{_features_digest(run_input, found)}/",
        "train_checkpoints": f"{run}/checkpoints/{names['train']}/",
        "leaderboard": f"{run}/leaderboard.json",
        "optimize_checkpoints": f"{run}/checkpoints/{names['optimize']}/",
        "variants": f"{run}/checkpoints/{names['optimize']}/variants.json",
        "evaluation": f"{run}/jobs/{names['evaluate']}/output/model/evaluation.json",
        "report": f"{run}/report/index.html",
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
    tuning = run_input["tuning"]
    return {
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
        "names": {
            **names,
            "model": f"{stack.name_prefix}-{run_id}",
            "endpoint_config": f"{stack.name_prefix}-{run_id}",
            "endpoint": run_input["endpoint_name"],
        },
        "locations": locations,
        "hyperparameters": _hyperparameters(run_input, run_id, stack.region, code),
        "channels": _channels(run_input, locations, code),
        "tuning": {
            "strategy": tuning["strategy"],
            "max_jobs": tuning["max_jobs"],
            "max_parallel_jobs": min(tuning["max_parallel_jobs"], tuning["max_jobs"]),
            "random_seed": run_input["seed"],
            "parameter_ranges": _parameter_ranges(tuning["ranges"]),
        },
        "managed_debugger": _managed_debugger(stack.debugger_rules_image, locations, run_input["debugger"]),
        "previous_endpoint_config": found.previous_endpoint_config,
        "deployment_config": _deployment_config(run_input, stack.name_prefix),
        "data_capture_config": _data_capture_config(run_input["serving"]["data_capture_percent"], root),
        "cost": cost.estimate(run_input),
    }


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
            # SageMaker wants more than all waits together; instances take minutes to come.
            "MaximumExecutionTimeoutInSeconds": serving["startup_timeout_seconds"] + 2 * bake_seconds + 1200,
        }
    }
    # The stack's alarms watch its default endpoint, and without baking nothing is watched.
    watched = bake_seconds and run_input["endpoint_name"] == name_prefix
    default = [f"{name_prefix}-{alarm}" for alarm in ROLLBACK_ALARMS] if watched else []
    if alarms := serving.get("rollback_alarms", default):
        config["AutoRollbackConfiguration"] = {"Alarms": [{"AlarmName": name} for name in alarms]}
    return config


def _managed_debugger(image: str, locations: dict[str, str], debugger: dict[str, Any]) -> dict[str, Any] | None:
    """Return CreateTrainingJob's configuration of SageMaker's own hook and rules, or None without their image."""
    if not image:
        return None
    collections = ("losses", "weights", "gradients")
    return {
        "hook": {
            "S3OutputPath": f"{locations['jobs']}/managed-debugger",
            "HookParameters": {"save_interval": str(debugger["save_interval_steps"])},
            "CollectionConfigurations": [{"CollectionName": name} for name in collections],
        },
        "rules": [
            {
                "RuleConfigurationName": rule,
                "RuleEvaluatorImage": image,
                "RuleParameters": {"rule_to_invoke": rule},
            }
            for rule in MANAGED_RULES
        ],
    }


def _data_capture_config(percent: int, root: str) -> dict[str, Any]:
    """Return SageMaker's DataCaptureConfig: images in base 64, answers as the JSON that they are."""
    return {
        "EnableCapture": percent > 0,
        "InitialSamplingPercentage": percent,
        "DestinationS3Uri": f"{root}/capture/",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
    }


def training_code_key(sha256: str) -> str:
    return f"code/training/{sha256}/sourcedir.tar.gz"


def inference_code_key(sha256: str) -> str:
    return f"code/inference/{sha256}/inference_code.tar.gz"


def _features_digest(run_input: dict[str, Any], found: Found) -> str:
    """Return a digest of everything that the frozen features depend on, so that equal runs share them."""
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
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _hyperparameters(
    run_input: dict[str, Any], run_id: str, region: str, code: dict[str, Any]
) -> dict[str, dict[str, str]]:
    model, tuning = run_input["model"], run_input["tuning"]
    data_and_network = {
        "seed": run_input["seed"],
        "image_size_px": model["image_size_px"],
        "fit": model["fit"],
        "architecture": model["architecture"],
        "weights": "channel" if model["weights"].startswith("s3://") else model["weights"],
        "mode": tuning["mode"],
    }
    final = run_input["training"]
    training = {
        **data_and_network,
        "hidden_units": model["hidden_units"],
        "dropout": model["dropout"],
        "augmentation": final["augmentation"],
        "class_weights": final["class_weights"],
    }
    scripts: dict[str, tuple[str, dict[str, Any]]] = {
        "prepare": (
            "prepare_dataset.py",
            {
                **data_and_network,
                "max_unreadable": run_input["max_unreadable"],
                **run_input["data"],
                "dataset_uri": run_input["dataset"],
            },
        ),
        "tune": ("train.py", {**training, "stage": "trial", "epochs": tuning["epochs"]}),
        "train": (
            "train.py",
            {
                **training,
                "stage": "final",
                "epochs": final["epochs"],
                "head_epochs": tuning["epochs"],
                "unfreeze": final["unfreeze"],
                "mirror": final["mirror"],
                "early_stopping_epochs": final["early_stopping_epochs"],
                "tuned": ",".join(sorted(tuning["ranges"])),
                "debugger": run_input["debugger"]["enabled"],
                "debugger_save_interval_steps": run_input["debugger"]["save_interval_steps"],
                "debugger_stop_on": _stopping_rules(run_input["debugger"]["actions"]),
                "run_id": run_id,
                "training_code_digest": code["training"]["sha256"],
                "inference_code_digest": code["inference"]["sha256"],
            },
        ),
        "evaluate": ("evaluate.py", {"split": "test"}),
    }
    joined = final["instance_count"] > 1 or run_input["instances"]["train"].startswith(GPU_INSTANCES)
    by_toolkit = {
        step: {
            # The training toolkit reads its own hyperparameters as JSON.
            "sagemaker_program": json.dumps(script),
            "sagemaker_submit_directory": json.dumps(code["training"]["uri"]),
            "sagemaker_region": json.dumps(region),
            "sagemaker_container_log_level": "20",
            **({"sagemaker_torch_distributed_enabled": "true"} if step == "train" and joined else {}),
            **{name: _option(value) for name, value in options.items()},
        }
        for step, (script, options) in scripts.items()
    }
    serving = run_input["serving"]
    return by_toolkit | {"optimize": {name: _option(serving[name]) for name in ("variant", "max_accuracy_loss")}}


def _stopping_rules(actions: dict[str, str]) -> str:
    return ",".join(rule for rule, action in actions.items() if action in STOPPING_ACTIONS) or "none"


def _channels(
    run_input: dict[str, Any], locations: dict[str, str], code: dict[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    frozen = run_input["tuning"]["mode"] == "frozen_features"
    dataset = _channel("dataset", run_input["dataset"])
    manifest = _channel("manifest", locations["manifest"])
    given = run_input["model"]["weights"]
    weights = [_channel("weights", given)] if given.startswith("s3://") else []
    inference_code = _channel("inference_code", code["inference"]["uri"])
    if frozen:
        features = _channel("features", locations["features"])
        tune = [manifest, features, *weights]
        train = [manifest, features, dataset, *weights, inference_code]
    else:
        tune = [manifest, dataset, *weights]
        train = [manifest, dataset, *weights, inference_code]
    return {
        "prepare": [dataset, *weights],
        "tune": tune,
        "train": train,
        "optimize": [manifest, dataset],
        "evaluate": [manifest, dataset],
    }


def _channel(name: str, uri: str) -> dict[str, Any]:
    source = {"S3DataType": "S3Prefix", "S3Uri": uri, "S3DataDistributionType": "FullyReplicated"}
    return {"ChannelName": name, "DataSource": {"S3DataSource": source}, "InputMode": "File"}


def _parameter_ranges(ranges: dict[str, Any]) -> dict[str, Any]:
    return {
        "ContinuousParameterRanges": [
            {
                "Name": name,
                "MinValue": _option(bounds["min"]),
                "MaxValue": _option(bounds["max"]),
                "ScalingType": bounds["scaling"],
            }
            for name, bounds in ranges.items()
            if name != "batch_size"
        ],
        "CategoricalParameterRanges": [
            {"Name": "batch_size", "Values": [_option(size) for size in ranges["batch_size"]]}
        ],
    }


def _option(value: Any) -> str:
    """Return a value as a script's option takes it: true and false in lower case."""
    return json.dumps(value) if isinstance(value, bool) else str(value)
