"""What CreateTrainingJob may ask for: the fields that are honoured, and what botocore's model cannot say of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localcloud.isolated import can_isolate
from localcloud.sagemaker import debugger
from localcloud.sagemaker.errors import unsupported, validation_error
from localcloud.sagemaker.metrics import compile_definitions
from localcloud.sagemaker.objects import Location
from localcloud.sagemaker.validation import Support

MOST_INSTANCES = 16  # each is a process of this machine
SUPPORT = Support(
    honoured=frozenset(
        {
            "TrainingJobName",
            "HyperParameters",
            "AlgorithmSpecification.TrainingImage",
            "AlgorithmSpecification.MetricDefinitions",
            "AlgorithmSpecification.ContainerEntrypoint",
            "AlgorithmSpecification.ContainerArguments",
            "RoleArn",
            "InputDataConfig[].ChannelName",
            "InputDataConfig[].ContentType",
            "InputDataConfig[].DataSource.S3DataSource.S3Uri",
            "OutputDataConfig",
            "ResourceConfig.InstanceCount",
            "StoppingCondition.MaxRuntimeInSeconds",
            "StoppingCondition.MaxWaitTimeInSeconds",
            "EnableManagedSpotTraining",
            "CheckpointConfig",
            "EnableNetworkIsolation",
            "Environment",
            "Tags",
            *debugger.HONOURED,
        }
    ),
    only={
        "AlgorithmSpecification.TrainingInputMode": (("File",), "channels are copied to files; use File"),
        "InputDataConfig[].InputMode": (("File",), "channels are copied to files; use File"),
        "InputDataConfig[].DataSource.S3DataSource.S3DataType": (
            ("S3Prefix", "ManifestFile"),
            "use S3Prefix or ManifestFile",
        ),
        "InputDataConfig[].DataSource.S3DataSource.S3DataDistributionType": (
            ("FullyReplicated", "ShardedByS3Key"),
            "use FullyReplicated or ShardedByS3Key",
        ),
        "InputDataConfig[].CompressionType": (("None",), "compressed channels exist in Pipe mode only"),
        "InputDataConfig[].RecordWrapperType": (("None",), "records are wrapped in Pipe mode only"),
        **debugger.ONLY,
        "RemoteDebugConfig.EnableRemoteDebug": ((False,), "there is no container to log in to"),
        "InfraCheckConfig.EnableInfraCheck": ((False,), "there is no fleet to check"),
    },
    ignored={
        "ResourceConfig.InstanceType": "this machine is the instance; the job finds the name in resourceconfig.json",
        "ResourceConfig.VolumeSizeInGB": "this machine's disk is the volume",
        "ResourceConfig.VolumeKmsKeyId": "the volume is a folder of this machine's own disk",
        "ResourceConfig.KeepAlivePeriodInSeconds": "nothing is billed here, so no pool is kept warm",
        "VpcConfig": "the job has this machine's network",
        "EnableInterContainerTrafficEncryption": "the traffic between containers stays on this machine",
        "StoppingCondition.MaxPendingTimeInSeconds": "no job is ever pending",
        "RetryStrategy": "AWS retries after its own internal errors only, and no such error is made up here",
        "AlgorithmSpecification.EnableSageMakerMetricsTimeSeries": "it is for SageMaker Studio",
        **debugger.IGNORED,
    },
)

LIST_SUPPORT = Support(
    honoured=frozenset(
        {
            "NextToken",
            "MaxResults",
            "CreationTimeAfter",
            "CreationTimeBefore",
            "LastModifiedTimeAfter",
            "LastModifiedTimeBefore",
            "NameContains",
            "StatusEquals",
            "SortBy",
            "SortOrder",
        }
    )
)


def check_request(parameters: Mapping[str, Any]) -> None:
    """Check what botocore's model cannot say. Raises ServiceError ValidationException."""
    for required in ("ResourceConfig", "StoppingCondition"):
        if required not in parameters:
            raise validation_error(f"{required} is required")
    count = parameters["ResourceConfig"].get("InstanceCount")
    if not count:
        raise validation_error("ResourceConfig.InstanceCount must be at least 1")
    if count > MOST_INSTANCES:
        raise unsupported(f"CreateTrainingJob: ResourceConfig.InstanceCount={count}", f"at most {MOST_INSTANCES} here")
    if parameters.get("EnableNetworkIsolation"):
        isolation = "CreateTrainingJob: EnableNetworkIsolation=true"
        if not can_isolate():
            raise unsupported(isolation, "this machine has no network namespaces for its users")
        if count > 1:
            raise unsupported(f"{isolation} with several instances", "they meet on this machine's loopback interface")
    algorithm = parameters["AlgorithmSpecification"]
    if "TrainingImage" not in algorithm:
        raise validation_error("AlgorithmSpecification.TrainingImage is required")
    compile_definitions(algorithm.get("MetricDefinitions", []))
    stopping = parameters["StoppingCondition"]
    longest_wait = stopping.get("MaxWaitTimeInSeconds")
    if parameters.get("EnableManagedSpotTraining"):
        if longest_wait is None or longest_wait < stopping.get("MaxRuntimeInSeconds", 86400):
            raise validation_error(
                "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds"
            )
    elif longest_wait is not None:
        raise validation_error("MaxWaitTimeInSeconds can only be given with EnableManagedSpotTraining")
    names = [channel["ChannelName"] for channel in parameters.get("InputDataConfig", [])]
    if len(set(names)) != len(names):
        raise validation_error(f"Channel names must be unique; got {', '.join(names)}")
    uris = [parameters["OutputDataConfig"]["S3OutputPath"]]
    if "CheckpointConfig" in parameters:
        uris.append(parameters["CheckpointConfig"]["S3Uri"])
        local_path = parameters["CheckpointConfig"].get("LocalPath", "/opt/ml/checkpoints")
        if not local_path.startswith("/opt/ml/") or ".." in local_path:
            raise validation_error(
                f"CheckpointConfig.LocalPath must be a folder below /opt/ml here, not {local_path!r}"
            )
    for channel in parameters.get("InputDataConfig", []):
        source = channel["DataSource"].get("S3DataSource")
        if source is None:
            raise validation_error(f"The channel {channel['ChannelName']!r} has no S3DataSource")
        uris.append(source["S3Uri"])
    for uri in uris:
        try:
            Location.parse(uri)
        except ValueError as error:
            raise validation_error(str(error)) from error
