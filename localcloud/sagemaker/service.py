"""The service: an action and its parameters in, the response's members or a ServiceError out.

    service = SageMaker(home, images, ports, region="us-east-1", account_id="000000000000")
    service.call("CreateTrainingJob", {...})

Requests are validated and responses are shaped by botocore's own model of SageMaker; an action that is in the model
but not in `ACTIONS` is refused by name.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcloud.containers.images import Images
from localcloud.sagemaker.auto_scaling import AutoScaling
from localcloud.sagemaker.data_capture import DataCapture
from localcloud.sagemaker.endpoint_configs import EndpointConfigs
from localcloud.sagemaker.endpoints import Endpoints
from localcloud.sagemaker.errors import unsupported
from localcloud.sagemaker.faults import INVOKE_ENDPOINT, Faults
from localcloud.sagemaker.invocation_metrics import InvocationMetrics
from localcloud.sagemaker.model_packages import ModelPackageGroups, ModelPackages
from localcloud.sagemaker.models import Models
from localcloud.sagemaker.rollouts import Rollouts
from localcloud.sagemaker.runtime import Invocation, invoke_endpoint
from localcloud.sagemaker.store import Store
from localcloud.sagemaker.tags import Tags
from localcloud.sagemaker.training_jobs import TrainingJobs
from localcloud.sagemaker.training_run import SPOT_INTERRUPTION
from localcloud.sagemaker.tuning_jobs import TuningJobs
from localcloud.sagemaker.validation import operation, shaped, validate

# Action to the part of SageMaker that answers it, and that part's method.
logger = logging.getLogger(__name__)

ACTIONS = {
    "AddTags": ("tags", "add_tags"),
    "CreateEndpoint": ("endpoints", "create_endpoint"),
    "CreateEndpointConfig": ("endpoint_configs", "create_endpoint_config"),
    "CreateHyperParameterTuningJob": ("tuning_jobs", "create_hyper_parameter_tuning_job"),
    "CreateModel": ("models", "create_model"),
    "CreateModelPackage": ("model_packages", "create_model_package"),
    "CreateModelPackageGroup": ("model_package_groups", "create_model_package_group"),
    "CreateTrainingJob": ("training_jobs", "create_training_job"),
    "DeleteEndpoint": ("endpoints", "delete_endpoint"),
    "DeleteEndpointConfig": ("endpoint_configs", "delete_endpoint_config"),
    "DeleteModel": ("models", "delete_model"),
    "DeleteModelPackage": ("model_packages", "delete_model_package"),
    "DeleteModelPackageGroup": ("model_package_groups", "delete_model_package_group"),
    "DeleteTags": ("tags", "delete_tags"),
    "DescribeEndpoint": ("endpoints", "describe_endpoint"),
    "DescribeEndpointConfig": ("endpoint_configs", "describe_endpoint_config"),
    "DescribeHyperParameterTuningJob": ("tuning_jobs", "describe_hyper_parameter_tuning_job"),
    "DescribeModel": ("models", "describe_model"),
    "DescribeModelPackage": ("model_packages", "describe_model_package"),
    "DescribeModelPackageGroup": ("model_package_groups", "describe_model_package_group"),
    "DescribeTrainingJob": ("training_jobs", "describe_training_job"),
    "ListEndpointConfigs": ("endpoint_configs", "list_endpoint_configs"),
    "ListEndpoints": ("endpoints", "list_endpoints"),
    "ListHyperParameterTuningJobs": ("tuning_jobs", "list_hyper_parameter_tuning_jobs"),
    "ListModelPackageGroups": ("model_package_groups", "list_model_package_groups"),
    "ListModelPackages": ("model_packages", "list_model_packages"),
    "ListModels": ("models", "list_models"),
    "ListTags": ("tags", "list_tags"),
    "ListTrainingJobs": ("training_jobs", "list_training_jobs"),
    "ListTrainingJobsForHyperParameterTuningJob": (
        "tuning_jobs",
        "list_training_jobs_for_hyper_parameter_tuning_job",
    ),
    "StopHyperParameterTuningJob": ("tuning_jobs", "stop_hyper_parameter_tuning_job"),
    "StopTrainingJob": ("training_jobs", "stop_training_job"),
    "UpdateEndpoint": ("endpoints", "update_endpoint"),
    "UpdateEndpointWeightsAndCapacities": ("endpoints", "update_endpoint_weights_and_capacities"),
    "UpdateModelPackage": ("model_packages", "update_model_package"),
}


@dataclass(frozen=True)
class Ports:
    """All that SageMaker needs from outside. Each is called from many threads at once."""

    client: Callable[[str, str | None], Any]
    """(boto3 service name, role ARN or None for the service itself) to a boto3 client with that identity."""
    role_environment: Callable[[str], dict[str, str]]
    """Role ARN to the AWS_* variables (endpoint, region, the role's temporary credentials) for a container."""
    publish_event: Callable[[str, dict, list[str]], None]
    """(detail-type, detail, resource ARNs): an event of the source aws.sagemaker."""


class SageMaker:
    """`home` keeps records and caches; what is in it is there again after a restart, finished jobs included."""

    def __init__(self, home: Path, images: Images, ports: Ports, region: str, account_id: str):
        self.home = home
        self.images = images
        self.ports = ports
        self.region = region
        self.account_id = account_id
        self.faults = Faults()
        self.store = Store(home / "records")
        self.tags = Tags(self)
        self.training_jobs = TrainingJobs(self)
        self.tuning_jobs = TuningJobs(self)
        self.model_package_groups = ModelPackageGroups(self)
        self.model_packages = ModelPackages(self)
        self.models = Models(self)
        self.endpoint_configs = EndpointConfigs(self)
        self.invocation_metrics = InvocationMetrics(self)
        self.data_capture = DataCapture(self)
        self.auto_scaling = AutoScaling(self)
        self.rollouts = Rollouts(self)
        self.endpoints = Endpoints(self)

    def call(self, action: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one request of a client, whom a fault may befall. Raises ServiceError, LostReply among them."""
        operation(action)
        self.faults.before(action, parameters)
        response = self.answer(action, parameters)
        self.faults.after(action, parameters)
        return response

    def answer(self, action: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one request as if there were no faults. Timestamps in the answer are aware datetimes
        (`validation.serialise` writes them for the wire).

        Raises ServiceError.
        """
        operation(action)
        if action not in ACTIONS:
            raise unsupported(action, f"it answers {', '.join(sorted(ACTIONS))}")
        part, method = ACTIONS[action]
        return shaped(action, getattr(getattr(self, part), method)(validate(action, parameters)) or {})

    def invoke_endpoint(self, name: str, body: bytes, headers: Mapping[str, str]) -> Invocation:
        """Answer one request of the runtime; `runtime.invoke_endpoint` says how. Raises ServiceError."""
        request = {"EndpointName": name}
        self.faults.before(INVOKE_ENDPOINT, request)
        invocation = invoke_endpoint(self, name, body, headers)
        self.faults.after(INVOKE_ENDPOINT, request)
        return invocation

    def inject(self, document: object) -> dict[str, Any]:
        """Add a fault; `faults` says what there are. Raises ServiceError ValidationException, naming the key."""
        if isinstance(document, Mapping) and document.get("Fault") == SPOT_INTERRUPTION:
            self.training_jobs.check_interruption(str(document.get("Name")))
        return self.faults.add(document)

    def announce(self, detail_type: str, arn: str, detail: Callable[[list[dict[str, str]]], dict[str, Any]]) -> None:
        """Publish a resource's event. An event that cannot be published is in the log, and changes nothing else.

        detail: the event's detail, from the resource's tags.
        """
        try:
            self.ports.publish_event(detail_type, detail(self.tags.of(arn)), [arn])
        except Exception:
            logger.exception("no event for %s", arn)

    def arn(self, resource: str) -> str:
        """Return the ARN of a resource such as `training-job/name`."""
        return f"arn:aws:sagemaker:{self.region}:{self.account_id}:{resource}"

    def close(self) -> None:
        """Stop every job and endpoint and wait until their processes are gone. What is recorded in `home` stays."""
        self.tuning_jobs.close()
        self.auto_scaling.close()
        self.rollouts.close()
        self.invocation_metrics.close()
        self.data_capture.close()
        self.training_jobs.close()
