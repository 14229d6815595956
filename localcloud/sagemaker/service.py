"""The service: an action and its parameters in, the response's members or a ServiceError out.

    service = SageMaker(home, images, ports, region="us-east-1", account_id="000000000000")
    service.call("CreateTrainingJob", {...})

Requests are validated and responses are shaped by botocore's own model of SageMaker; an action that is in the model
but not in `ACTIONS` is refused by name.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localcloud.containers.images import Images
from localcloud.sagemaker.account import Account, Ports
from localcloud.sagemaker.auto_scaling import AutoScaling
from localcloud.sagemaker.data_capture import DataCapture
from localcloud.sagemaker.endpoint_configs import EndpointConfigs
from localcloud.sagemaker.endpoints import Endpoints
from localcloud.sagemaker.errors import unsupported
from localcloud.sagemaker.faults import INVOKE_ENDPOINT
from localcloud.sagemaker.invocation_metrics import InvocationMetrics
from localcloud.sagemaker.model_packages import ModelPackageGroups, ModelPackages
from localcloud.sagemaker.models import Models
from localcloud.sagemaker.rollouts import Rollouts
from localcloud.sagemaker.runtime import Invocation, Runtime
from localcloud.sagemaker.training_jobs import TrainingJobs
from localcloud.sagemaker.training_run import SPOT_INTERRUPTION
from localcloud.sagemaker.tuning_jobs import TuningJobs
from localcloud.sagemaker.validation import operation, shaped, validate

# Action to the part of SageMaker that answers it, and that part's method.
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


class SageMaker:
    """All parts; each is given the account, and the other parts that it uses."""

    def __init__(self, home: Path, images: Images, ports: Ports, region: str, account_id: str):
        self.account = account = Account(home, images, ports, region, account_id)
        self.faults = account.faults
        self.tags = account.tags
        self.training_jobs = TrainingJobs(account)
        self.tuning_jobs = TuningJobs(account, self.training_jobs)
        self.model_package_groups = ModelPackageGroups(account)
        self.model_packages = ModelPackages(account, self.model_package_groups)
        self.models = Models(account, self.model_packages)
        self.endpoint_configs = EndpointConfigs(account, self.models)
        self.invocation_metrics = InvocationMetrics(account)
        self.data_capture = DataCapture(account)
        self.auto_scaling = AutoScaling(account, self.answer)
        self.rollouts = Rollouts(account, self.auto_scaling, self.invocation_metrics)
        self.endpoints = Endpoints(account, self.models, self.endpoint_configs, self.auto_scaling, self.rollouts)
        self.runtime = Runtime(account, self.rollouts, self.invocation_metrics, self.data_capture)

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
        """Answer one request of the runtime; `Runtime` says how. Raises ServiceError."""
        request = {"EndpointName": name}
        self.faults.before(INVOKE_ENDPOINT, request)
        invocation = self.runtime.invoke_endpoint(name, body, headers)
        self.faults.after(INVOKE_ENDPOINT, request)
        return invocation

    def inject(self, document: object) -> dict[str, Any]:
        """Add a fault; `faults` says what there are. Raises ServiceError ValidationException, naming the key."""
        if isinstance(document, Mapping) and document.get("Fault") == SPOT_INTERRUPTION:
            self.training_jobs.check_interruption(str(document.get("Name")))
        return self.faults.add(document)

    def close(self) -> None:
        """Stop every job and endpoint and wait until their processes are gone. What is recorded in `home` stays."""
        self.tuning_jobs.close()
        self.auto_scaling.close()
        self.rollouts.close()
        self.invocation_metrics.close()
        self.data_capture.close()
        self.training_jobs.close()
