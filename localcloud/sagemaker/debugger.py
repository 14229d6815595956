"""The managed Debugger, as far as it is here: the container finds the configurations of its hook, of TensorBoard and
of the profiler in /opt/ml/input/config, and what it writes by them is uploaded while it runs.

Rules are not evaluated: a request that has some is refused. Where AWS puts each file and folder is told by smdebug
(core/config_constants.py) and by the SageMaker SDK (latest_job_debugger_artifacts_path).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localcloud.sagemaker.errors import validation_error
from localcloud.sagemaker.objects import Location


@dataclass(frozen=True)
class Output:
    """A member of CreateTrainingJob, its file in input/config, and the folders for what the container writes."""

    member: str
    file: str
    local_path: str
    uploaded_to: str


OUTPUTS = (
    Output("DebugHookConfig", "debughookconfig", "/opt/ml/output/tensors", "debug-output"),
    Output("TensorBoardOutputConfig", "tensorboardoutputconfig", "/opt/ml/output/tensorboard", "tensorboard-output"),
    Output("ProfilerConfig", "profilerconfig", "/opt/ml/output/profiler", "profiler-output"),
)
MEMBERS = (*(output.member for output in OUTPUTS), "DebugRuleConfigurations", "ProfilerRuleConfigurations")

NOT_EVALUATED = "no rules are evaluated here: evaluate them in the job, or leave them out"
HONOURED = frozenset(
    {
        "DebugHookConfig",
        "TensorBoardOutputConfig",
        "ProfilerConfig.S3OutputPath",
        "ProfilerConfig.ProfilingParameters",
        "ProfilerConfig.DisableProfiler",
    }
)
ONLY: dict[str, tuple[tuple[Any, ...], str]] = {
    "DebugRuleConfigurations": (([],), NOT_EVALUATED),
    "ProfilerRuleConfigurations": (([],), NOT_EVALUATED),
}
IGNORED = {
    "ProfilerConfig.ProfilingIntervalInMilliseconds": "this machine's metrics are not sampled; the container is told",
}

# The words are ours: AWS has not published its own.
# https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-availability-change.html
CLOSED = "Amazon SageMaker Debugger is no longer open to new customers. Remove {members} from the request."


def outputs(request: Mapping[str, Any]) -> list[tuple[Output, dict[str, Any]]]:
    """Return what a request asks for, each with its configuration, LocalPath filled in."""
    return [
        (output, {"LocalPath": output.local_path, **request[output.member]})
        for output in OUTPUTS
        if request.get(output.member) and not request[output.member].get("DisableProfiler")
    ]


def asked_for(request: Mapping[str, Any]) -> list[str]:
    """Return the members of a request that need the Debugger."""
    used = {output.member for output, _ in outputs(request)} - {"TensorBoardOutputConfig"}
    return [
        member for member in MEMBERS if member in used or (member.endswith("Configurations") and request.get(member))
    ]


def check(request: Mapping[str, Any]) -> None:
    """Raises ServiceError ValidationException for what botocore's model cannot say."""
    for output, configuration in outputs(request):
        local_path = configuration["LocalPath"]
        if not local_path.startswith("/opt/ml/") or ".." in local_path:
            raise validation_error(f"{output.member}.LocalPath must be a folder below /opt/ml here, not {local_path!r}")
        if "S3OutputPath" not in configuration:
            raise validation_error(f"{output.member}.S3OutputPath is required")
        try:
            Location.parse(configuration["S3OutputPath"])
        except ValueError as error:
            raise validation_error(str(error)) from error


def destination(output: Output, configuration: Mapping[str, Any], job_name: str) -> Location:
    return Location.parse(configuration["S3OutputPath"]).below(f"{job_name}/{output.uploaded_to}")
