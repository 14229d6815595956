"""What the run asks of SageMaker, in the API's own form: who each job is, what it reads, what it runs and where.

Optional members are left out where the stack does not ask for them, which an expression of the state machine could not
do. What only the run comes to know, the state machine merges into these: the training's number and chosen values, the
artifact, the champion. Pure.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

from saved_collections import SAVED_COLLECTIONS

VARIANT = "AllTraffic"
"""The endpoint's one production variant."""
GPU_INSTANCES = ("ml.g", "ml.p")  # torchrun starts a process for each of their GPUs
MANAGED_RULES = ("ExplodingTensor", "LossNotDecreasing", "Overfit", "VanishingGradient")
STOPPING_ACTIONS = ("stop", "lower_learning_rate", "raise_learning_rate")
"""What an issue leads to that is found before the training's end, and makes the rest of it worthless."""
OBJECTIVE = "valid:accuracy"
METRICS = [
    {"Name": "valid:accuracy", "Regex": "valid_accuracy=([0-9.]+)"},
    {"Name": "valid:loss", "Regex": "valid_loss=([0-9.]+)"},
    {"Name": "train:accuracy", "Regex": "train_accuracy=([0-9.]+)"},
    {"Name": "train:loss", "Regex": "train_loss=([0-9.]+)"},
]
RUN_OPTIMIZE = (
    'mkdir "$1/artifact" && tar -xzf "$0/model.tar.gz" -C "$1/artifact" && '
    'exec python "$1/artifact/code/run_optimize.py" "$1" "$1/artifact" "$2" "$3"'
)
"""The serving image has no training toolkit: the artifact's own code is the job."""
WITH_LOCAL_DISK = re.compile(r"ml\.([a-z]+[0-9]+[a-z]*d[a-z]*|[gp][4-9][a-z]*|trn[0-9][a-z]*)\.")
"""Instances that encrypt their own disk and are refused with a VolumeKmsKeyId or KmsKeyId:
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ResourceConfig.html"""
CODE = "/opt/ml/input/data/code/sourcedir.tar.gz"
PIP_OFFLINE = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_FIND_LINKS": "/opt/ml/input/data/wheels"}
"""What makes the toolkit's pip, and a job's own, take wheels from a channel, and nothing that the image has."""


@dataclass(frozen=True)
class Account:
    """Who the jobs and the endpoint are, and what the stack says of all of them."""

    job_role: str
    evaluation_role: str
    serving_role: str
    volume_size_gb: int
    debugger_rules_image: str
    subnets: tuple[str, ...]
    """None for SageMaker's own network."""
    security_groups: tuple[str, ...]
    isolated: bool
    """Whether the containers have no network at all."""
    key_arn: str
    """Of the customer's key; '' for AWS's own."""
    tags: dict[str, str]


def requests_of(plan: dict[str, Any], region: str, account: Account) -> dict[str, Any]:
    """Return the plan's member `requests`, in the order in which the run makes them. plan: all else of it."""
    run_input, names, locations = plan["input"], plan["names"], plan["locations"]
    hyperparameters = _hyperparameters(run_input, plan["run_id"], region, plan["code"])
    channels = _channels(run_input, locations, plan["code"])
    tuning, serving = run_input["tuning"], run_input["serving"]

    tags = {"Tags": [{"Key": key, "Value": value} for key, value in (account.tags | {"run": plan["run_id"]}).items()]}
    network = _network(account)

    def job(step: str, role: str, instance_count: int = 1, packed: bool = True, **algorithm: Any) -> dict[str, Any]:
        instance_type = run_input["instances"][step]
        return {
            "RoleArn": role,
            "AlgorithmSpecification": {"TrainingImage": plan["images"][step], "TrainingInputMode": "File", **algorithm},
            "InputDataConfig": channels[step] + (_wheels(step, locations["wheels"]) if account.isolated else []),
            "OutputDataConfig": {
                "S3OutputPath": locations["jobs"],
                **({} if packed else {"CompressionType": "NONE"}),
                **({"KmsKeyId": account.key_arn} if account.key_arn else {}),
            },
            "ResourceConfig": {
                "InstanceType": instance_type,
                "InstanceCount": instance_count,
                "VolumeSizeInGB": account.volume_size_gb,
                **_volume_key("VolumeKmsKeyId", account, instance_type),
            },
            "StoppingCondition": {"MaxRuntimeInSeconds": run_input["max_job_seconds"]},
            **network,
            **({"Environment": PIP_OFFLINE} if account.isolated else {}),
        }

    def training_job(step: str, role: str, **options: Any) -> dict[str, Any]:
        named = {"TrainingJobName": names[step], "HyperParameters": hyperparameters[step]}
        return named | job(step, role, **options) | tags

    def checkpointed(request: dict[str, Any], uri: str) -> dict[str, Any]:
        environment = request.get("Environment", {}) | {"SM_CHECKPOINT_DIR": "/opt/ml/checkpoints"}
        return request | {"CheckpointConfig": {"S3Uri": uri}, "Environment": environment}

    return {
        "prepare": checkpointed(training_job("prepare", account.job_role, packed=False), locations["features"]),
        "tune": {
            "HyperParameterTuningJobName": names["tune"],
            "HyperParameterTuningJobConfig": {
                "Strategy": tuning["strategy"],
                "HyperParameterTuningJobObjective": {"Type": "Maximize", "MetricName": OBJECTIVE},
                "ResourceLimits": {
                    "MaxNumberOfTrainingJobs": tuning["max_jobs"],
                    "MaxParallelTrainingJobs": min(tuning["max_parallel_jobs"], tuning["max_jobs"]),
                },
                "ParameterRanges": _parameter_ranges(tuning["ranges"]),
                "RandomSeed": run_input["seed"],
            },
            "TrainingJobDefinition": {
                "StaticHyperParameters": hyperparameters["tune"],
                **job("tune", account.job_role, MetricDefinitions=METRICS),
            },
            **tags,
        },
        "train": checkpointed(
            training_job(
                "train",
                account.job_role,
                instance_count=run_input["training"]["instance_count"],
                MetricDefinitions=METRICS,
            ),
            locations["train_checkpoints"],
        )
        | _managed_debugger(account.debugger_rules_image, f"{locations['jobs']}/managed-debugger"),
        "optimize": training_job(
            "optimize",
            account.job_role,
            ContainerEntrypoint=["sh", "-c", RUN_OPTIMIZE],
            ContainerArguments=[
                "/opt/ml/input/data/model",
                "/opt/ml",
                "/opt/ml/input/data/dataset",
                "/opt/ml/input/data/manifest",
            ],
        )
        | {"CheckpointConfig": {"S3Uri": locations["optimize_checkpoints"]}},
        "evaluate": training_job("evaluate", account.evaluation_role, packed=False),
        "model": {
            "ModelName": names["model"],
            "ExecutionRoleArn": account.serving_role,
            "PrimaryContainer": {
                "Image": plan["images"]["endpoint"],
                "Environment": {
                    "RAYSERVE_BACKEND_URL": "http://127.0.0.1:8001",
                    **(PIP_OFFLINE | {"PIP_FIND_LINKS": "/opt/ml/model/code/wheels"} if account.isolated else {}),
                },
            },
            **network,
            **tags,
        },
        "endpoint_config": {
            "EndpointConfigName": names["endpoint_config"],
            "ProductionVariants": [
                {
                    "VariantName": VARIANT,
                    "ModelName": names["model"],
                    "InstanceType": run_input["instances"]["endpoint"],
                    "InitialInstanceCount": serving["instance_count"],
                    "InitialVariantWeight": 1,
                    "ContainerStartupHealthCheckTimeoutInSeconds": serving["startup_timeout_seconds"],
                }
            ],
            "DataCaptureConfig": _data_capture_config(
                serving["data_capture_percent"], locations["capture"], account.key_arn
            ),
            **_volume_key("KmsKeyId", account, run_input["instances"]["endpoint"]),
            **tags,
        },
        "endpoint": {"EndpointName": names["endpoint"], "EndpointConfigName": names["endpoint_config"], **tags},
    }


def _network(account: Account) -> dict[str, Any]:
    vpc = {"Subnets": list(account.subnets), "SecurityGroupIds": list(account.security_groups)}
    return {
        **({"VpcConfig": vpc} if account.subnets else {}),
        **({"EnableNetworkIsolation": True} if account.isolated else {}),
    }


def _volume_key(member: str, account: Account, instance_type: str) -> dict[str, str]:
    return {member: account.key_arn} if account.key_arn and not WITH_LOCAL_DISK.match(instance_type) else {}


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
                "learning_rate_scale": 1,
                "early_stopping_epochs": final["early_stopping_epochs"],
                "tuned": ",".join(sorted(tuning["ranges"])),
                "debugger": run_input["debugger"]["enabled"],
                "debugger_save_interval_steps": run_input["debugger"]["save_interval_steps"],
                "debugger_stop_on": _stopping_rules(run_input["debugger"]["actions"]),
                "debugger_parameters": _rule_parameters(run_input["debugger"]["parameters"]),
                "profiler": run_input["profiler"]["enabled"],
                "profiler_window_steps": run_input["profiler"]["window_steps"],
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
            "sagemaker_submit_directory": json.dumps(CODE),
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


def _rule_parameters(parameters: dict[str, dict[str, float | bool]]) -> str:
    """Return them as train.py takes them. The training toolkit would hand a script what is JSON as Python writes it."""
    given = [(f"{rule}.{name}", value) for rule, named in parameters.items() for name, value in named.items()]
    return ",".join(f"{name}={json.dumps(value)}" for name, value in given) or "none"


def _channels(
    run_input: dict[str, Any], locations: dict[str, str], code: dict[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    frozen = run_input["tuning"]["mode"] == "frozen_features"
    # As a channel, which reaches containers that have no network too.
    training_code = _channel("code", code["training"]["uri"])
    dataset = _channel("dataset", run_input["dataset"])
    manifest = _channel("manifest", locations["manifest"])
    given = run_input["model"]["weights"]
    weights = [_channel("weights", given)] if given.startswith("s3://") else []
    inference_code = _channel("inference_code", code["inference"]["uri"])
    if frozen:
        features = _channel("features", locations["features"])
        tune = [training_code, manifest, features, *weights]
        train = [training_code, manifest, features, dataset, *weights, inference_code]
    else:
        tune = [training_code, manifest, dataset, *weights]
        train = [training_code, manifest, dataset, *weights, inference_code]
    return {
        "prepare": [training_code, dataset, *weights],
        "tune": tune,
        "train": train,
        "optimize": [manifest, dataset],
        "evaluate": [training_code, manifest, dataset],
    }


def _wheels(step: str, uri: str) -> list[dict[str, Any]]:
    """Return the channels from which a job without a network installs, and an endpoint what its artifact carries."""
    if step == "optimize":  # in the endpoint's image
        return [_channel("wheels", f"{uri}serving/")]
    carried = [_channel("serving_wheels", f"{uri}serving/")] if step == "train" else []
    return [_channel("wheels", f"{uri}training/"), *carried]


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


def _managed_debugger(image: str, output: str) -> dict[str, Any]:
    """Return CreateTrainingJob's configuration of SageMaker's own hook and rules: nothing without their image.

    The hook takes the place of the job's own, and saves the same. output: an s3:// prefix.
    """
    if not image:
        return {}
    return {
        "DebugHookConfig": {"S3OutputPath": output, "CollectionConfigurations": SAVED_COLLECTIONS},
        "TensorBoardOutputConfig": {"S3OutputPath": output},
        "DebugRuleConfigurations": [
            {
                "RuleConfigurationName": rule,
                "RuleEvaluatorImage": image,
                "RuleParameters": {"rule_to_invoke": rule},
            }
            for rule in MANAGED_RULES
        ],
    }


def _data_capture_config(percent: int, uri: str, key_arn: str) -> dict[str, Any]:
    """Return SageMaker's DataCaptureConfig: images in base 64, answers as the JSON that they are."""
    return {
        "EnableCapture": percent > 0,
        "InitialSamplingPercentage": percent,
        "DestinationS3Uri": uri,
        **({"KmsKeyId": key_arn} if key_arn else {}),
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
    }


def _option(value: Any) -> str:
    """Return a value as a script's option takes it: true and false in lower case."""
    return json.dumps(value) if isinstance(value, bool) else str(value)
