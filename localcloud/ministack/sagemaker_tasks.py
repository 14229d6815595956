"""SageMaker in a state machine: the optimized integrations, with `.sync`, and `aws-sdk:sagemaker:*`.

Error names. Step Functions names an error after its own SDK's exception class: a modelled exception keeps its name with
the suffix Exception (`SageMaker.ResourceLimitExceededException`, `SageMaker.ResourceInUseException`); anything else,
ValidationException and ThrottlingException included, is the service's base class, which is
`SageMaker.AmazonSageMakerException` in the optimized integrations (SDK for Java 1) and `SageMaker.SageMakerException`
in the aws-sdk ones (SDK for Java 2). Published definitions and execution records show both forms; AWS's own sample
projects retry on `SageMaker.AmazonSageMakerException`. For a connection that ends without a reply both SDKs have the
class SdkClientException: https://docs.aws.amazon.com/step-functions/latest/dg/bp-lambda-serviceexception.html

Output. An optimized integration returns AWS's member names; the result of `.sync` is the job's description with times
in milliseconds since 1970 and `Tags` as a map that holds the execution's ARN: Step Functions adds the tags
AWS_STEP_FUNCTIONS_EXECUTION_ARN and MANAGED_BY_AWS to the jobs that it starts. (An execution's output of a tuning job,
kept in a public repository, shows this form: "CreationTime": 1585397644473.) An aws-sdk integration returns times as
ISO 8601.
"""

import functools
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import botocore.session
from ministack.services import stepfunctions

from localcloud.cloud import ACCOUNT_ID, REGION
from localcloud.ministack import identities
from localcloud.ministack.executions import ExecutionEnded
from localcloud.ministack.sagemaker_authorisation import authorise_references, resource_of
from localcloud.ministack.state_machines import access_key_of_role, current_task
from localcloud.sagemaker.errors import ServiceError
from localcloud.sagemaker.faults import LostReply
from localcloud.sagemaker.service import SageMaker
from localcloud.sagemaker.validation import validate

OPTIMIZED = "arn:aws:states:::sagemaker:"
AWS_SDK = "arn:aws:states:::aws-sdk:sagemaker:"
POLL_SECONDS = 0.1

# https://docs.aws.amazon.com/step-functions/latest/dg/connect-sagemaker.html, without the jobs that are not served here
OPTIMIZED_ACTIONS = (
    "createEndpoint",
    "createEndpointConfig",
    "createHyperParameterTuningJob",
    "createModel",
    "createTrainingJob",
    "updateEndpoint",
)


@dataclass(frozen=True)
class Job:
    describe: str
    stop: str
    name: str
    status: str
    rule: str
    """The EventBridge rule by which Step Functions learns of the job's end."""


JOBS = {
    "createTrainingJob": Job(
        "DescribeTrainingJob",
        "StopTrainingJob",
        "TrainingJobName",
        "TrainingJobStatus",
        "StepFunctionsGetEventsForSageMakerTrainingJobsRule",
    ),
    "createHyperParameterTuningJob": Job(
        "DescribeHyperParameterTuningJob",
        "StopHyperParameterTuningJob",
        "HyperParameterTuningJobName",
        "HyperParameterTuningJobStatus",
        "StepFunctionsGetEventsForSageMakerTuningJobsRule",
    ),
}


def register(sagemaker: SageMaker) -> None:
    tasks = Tasks(sagemaker)
    stepfunctions._SERVICE_DISPATCH[OPTIMIZED] = tasks.optimized
    stepfunctions._SERVICE_DISPATCH[AWS_SDK] = tasks.aws_sdk


class Tasks:
    def __init__(self, sagemaker: SageMaker):
        self._sagemaker = sagemaker

    def optimized(self, resource: str, parameters: Any) -> dict[str, Any]:
        action, _, pattern = resource.removeprefix(OPTIMIZED).partition(".")
        if action not in OPTIMIZED_ACTIONS or pattern not in ("", "sync") or (pattern and action not in JOBS):
            raise stepfunctions._ExecutionError(
                "States.Runtime", f"{resource} is not supported by the local cloud, which has {OPTIMIZED_ACTIONS}"
            )
        if pattern == "sync":
            return self._run(JOBS[action], action, dict(parameters))
        return _jsonable(self._call(_pascal(action), parameters, optimized_error), _milliseconds)

    def aws_sdk(self, resource: str, parameters: Any) -> dict[str, Any]:
        action = _pascal(resource.removeprefix(AWS_SDK))
        response = self._call(action, parameters, aws_sdk_error)
        seconds = _jsonable(response, datetime.timestamp)
        return stepfunctions._sdk_json_result("sagemaker", action, seconds)

    def _run(self, job: Job, action: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Start a job and wait for its end; stop it if the execution or the state ends first."""
        task = current_task()
        tags = {
            "MANAGED_BY_AWS": "STARTED_BY_STEP_FUNCTIONS",
            "AWS_STEP_FUNCTIONS_EXECUTION_ARN": task.execution["executionArn"],
        }
        given = {tag["Key"]: tag["Value"] for tag in parameters.get("Tags", [])}
        parameters["Tags"] = [{"Key": key, "Value": value} for key, value in (given | tags).items()]
        try:
            self._authorise_waiting(job, parameters)
        except ServiceError as error:
            raise optimized_error(error) from error
        self._call(_pascal(action), parameters, optimized_error)
        name = {job.name: parameters[job.name]}
        while True:
            description = self._sagemaker.answer(job.describe, name)
            if description[job.status] in ("Completed", "Failed", "Stopped"):
                break
            if task.ended():
                self._stop(job, name)
                raise ExecutionEnded(f"the task ended before the job {parameters[job.name]}, which is stopped")
            time.sleep(POLL_SECONDS)
        output = _jsonable(description, _milliseconds) | {"Tags": given | tags}
        if description[job.status] != "Completed":
            raise stepfunctions._ExecutionError("States.TaskFailed", json.dumps(output))
        return output

    def _stop(self, job: Job, name: dict[str, str]) -> None:
        try:
            self._sagemaker.answer(job.stop, name)
        except ServiceError:
            # It ended in the meantime, which is as good.
            return

    def _call(self, action: str, parameters: Any, named: Callable[[ServiceError], Exception]) -> dict[str, Any]:
        try:
            self._authorise(action, validate(action, parameters))
            return self._sagemaker.call(action, parameters)
        except LostReply as error:
            raise (no_reply if error.closed else named)(error) from error
        except ServiceError as error:
            raise named(error) from error

    def _authorise(self, action: str, parameters: Any) -> None:
        """The state machine's own role decides, as on AWS. Raises ServiceError AccessDeniedException."""
        access_key = _access_key()
        needed = [f"sagemaker:{action}"]
        if parameters.get("Tags"):
            needed.append("sagemaker:AddTags")
        _require(access_key, needed, resource_of(action, parameters))
        authorise_references(access_key, action, parameters)

    def _authorise_waiting(self, job: Job, parameters: dict[str, Any]) -> None:
        """What `.sync` needs beside the action itself; AWS asks for the rule when the state machine is created.

        https://docs.aws.amazon.com/step-functions/latest/dg/connect-sagemaker.html"""
        access_key = _access_key()
        waiting = [f"sagemaker:{job.describe}", f"sagemaker:{job.stop}"]
        _require(access_key, waiting, resource_of(job.describe, parameters))
        rule = f"arn:aws:events:{REGION}:{ACCOUNT_ID}:rule/{job.rule}"
        _require(access_key, ["events:PutTargets", "events:PutRule", "events:DescribeRule"], rule)


def _access_key() -> str:
    try:
        return access_key_of_role()
    except identities.RoleCannotBeAssumed as error:
        raise ServiceError("AccessDeniedException", str(error)) from error


def _require(access_key: str, actions: list[str], resource_arn: str) -> None:
    for action in actions:
        if message := identities.refusal(access_key, action, resource_arn):
            raise ServiceError("AccessDeniedException", message)


def no_reply(_error: ServiceError) -> Exception:
    return stepfunctions._ExecutionError("SageMaker.SdkClientException", "Unable to execute HTTP request")


def optimized_error(error: ServiceError) -> Exception:
    name = f"SageMaker.{_exception_class(error.code) or 'AmazonSageMakerException'}"
    return stepfunctions._ExecutionError(
        name,
        f"{error.message} (Service: AmazonSageMaker; Status Code: {error.http_status}; Error Code: {error.code}; "
        f"Request ID: {uuid.uuid4()}; Proxy: null)",
    )


def aws_sdk_error(error: ServiceError) -> Exception:
    name = f"SageMaker.{_exception_class(error.code) or 'SageMakerException'}"
    return stepfunctions._ExecutionError(
        name, f"{error.message} (Service: SageMaker, Status Code: {error.http_status}, Request ID: {uuid.uuid4()})"
    )


@functools.cache
def _exception_class(code: str) -> str | None:
    """The SDK for Java's class for an error code, or None if SageMaker's model has no such exception."""
    model = botocore.session.get_session().get_service_model("sagemaker")
    if code not in model.shape_names:
        return None
    return code if code.endswith("Exception") else f"{code}Exception"


def _jsonable(value: Any, timestamp: Callable[[datetime], float]) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(item, timestamp) for key, item in value.items()}
    if isinstance(value, list):
        return [_jsonable(item, timestamp) for item in value]
    return timestamp(value) if isinstance(value, datetime) else value


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _pascal(action: str) -> str:
    return action[:1].upper() + action[1:]
