"""A deployed stack as its tests see it, on AWS or on a local cloud: through boto3 alone; and what it promises."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import boto3

QUICK = {
    "model": {"weights": "none"},
    "tuning": {"max_jobs": 1, "epochs": 1, "ranges": {"batch_size": [2]}},
    "training": {"epochs": 1},
    "debugger": {"enabled": False},
}
"""Settings of the shortest run."""


@dataclass
class Stack:
    """One deployed stack, and the endpoint that its runs deploy to: by default the one that bears its name."""

    name: str
    """Its NamePrefix."""
    session: boto3.Session
    outputs: dict[str, str]
    endpoint_name: str
    patience_seconds: float
    """How long a run may take."""

    def client(self, service: str) -> Any:
        return self.session.client(service)

    def start(self, dataset: str, **given: Any) -> str:
        document = {"dataset": dataset, "endpoint_name": self.endpoint_name, **QUICK, **given}
        return self.client("stepfunctions").start_execution(
            stateMachineArn=self.outputs["StateMachineArn"], input=json.dumps(document)
        )["executionArn"]

    def end_of(self, execution: str) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            found = self.describe(execution)
            return None if found["status"] == "RUNNING" else found

        return self.wait_until(ended, lambda: self.states(execution)[-5:])

    def run(self, dataset: str, **given: Any) -> dict[str, Any]:
        return self.end_of(self.start(dataset, **given))

    def describe(self, execution: str) -> dict[str, Any]:
        return self.client("stepfunctions").describe_execution(executionArn=execution)

    def states(self, execution: str) -> list[str]:
        """The states that an execution has entered."""
        pages = self.client("stepfunctions").get_paginator("get_execution_history").paginate(executionArn=execution)
        events = [event for page in pages for event in page["events"]]
        return [event["stateEnteredEventDetails"]["name"] for event in events if "stateEnteredEventDetails" in event]

    def wait_until(self, condition: Callable[[], Any], told: Callable[[], Any]) -> Any:
        """Return the condition's first true value; asks the less often the longer it takes. told: of a failure."""
        started = time.monotonic()
        while not (value := condition()):
            waited = time.monotonic() - started
            assert waited < self.patience_seconds, told()
            time.sleep(min(0.1 + waited / 20, 15))
        return value

    def read(self, key: str) -> dict[str, Any]:
        return json.loads(self.client("s3").get_object(Bucket=self.outputs["Bucket"], Key=key)["Body"].read())

    def run_id(self, execution: str) -> str:
        return hashlib.sha256(execution.encode()).hexdigest()[:12]

    def report(self, execution: str) -> str:
        """The run's page."""
        key = f"runs/{self.run_id(execution)}/report/index.html"
        return self.client("s3").get_object(Bucket=self.outputs["Bucket"], Key=key)["Body"].read().decode()

    def endpoint(self) -> dict[str, Any]:
        return self.client("sagemaker").describe_endpoint(EndpointName=self.endpoint_name)

    def lock(self) -> dict[str, Any]:
        return self.read(f"endpoints/{self.endpoint_name}/lock.json")

    def pointer(self) -> dict[str, Any]:
        """The champion's pointer."""
        return self.read(f"endpoints/{self.endpoint_name}/champion.json")

    def wait_until_recovered(self, execution: str) -> None:
        """Wait until EventBridge's call has given back the lock of an execution that ended."""
        self.wait_until(lambda: execution not in (self.lock()["owner"], self.lock()["left_by"]), self._recovery)

    def package(self, execution: str) -> dict[str, Any]:
        """What RegisterModel left of an execution's model."""
        sagemaker = self.client("sagemaker")
        (group,) = sagemaker.list_model_package_groups(NameContains=f"{self.name}-")["ModelPackageGroupSummaryList"]
        pages = sagemaker.get_paginator("list_model_packages").paginate(
            ModelPackageGroupName=group["ModelPackageGroupName"]
        )
        arns = [package["ModelPackageArn"] for page in pages for package in page["ModelPackageSummaryList"]]
        packages = [sagemaker.describe_model_package(ModelPackageName=arn) for arn in arns]
        return next(one for one in packages if one["MetadataProperties"]["GeneratedBy"] == execution)

    def assert_serves(self, config: str) -> None:
        """The champion's configuration is in service, and nobody is about to change that."""
        live = self.endpoint()
        assert (live["EndpointStatus"], live["EndpointConfigName"]) == ("InService", config)
        assert self.pointer()["endpoint_config"] == config
        assert self.lock()["owner"] is None

    def assert_deployed(self, execution: str) -> None:
        """The execution has succeeded, and its model is the champion."""
        ended = self.describe(execution)
        assert ended["status"] == "SUCCEEDED", f"{ended.get('error')}: {ended.get('cause')}"
        pointer = self.pointer()
        assert pointer["execution_arn"] == execution
        assert self.package(execution)["ModelApprovalStatus"] == "Approved"
        self.assert_serves(pointer["endpoint_config"])

    def assert_rejected(self, execution: str, config: str) -> None:
        """The execution's model was no match for the champion, whose configuration still serves."""
        ended = self.describe(execution)
        assert (ended["status"], ended.get("error")) == ("FAILED", "ModelRejected"), ended.get("cause")
        assert "CreateModel" not in self.states(execution)
        package = self.package(execution)
        assert package["ModelApprovalStatus"] == "Rejected"
        assert package["CustomerMetadataProperties"]["execution_arn"] == execution
        self.wait_until_recovered(execution)
        self.assert_serves(config)

    def assert_taken_back(self, execution: str, error: str, config: str) -> None:
        """The execution's model was in service, and the champion's configuration is again."""
        ended = self.describe(execution)
        assert (ended["status"], ended.get("error")) == ("FAILED", error), ended.get("cause")
        assert "RollBackEndpoint" in self.states(execution)
        self.wait_until_recovered(execution)
        self.assert_serves(config)

    def paid_jobs(self, execution: str) -> list[str]:
        """The names of all training jobs, trials included, and tuning jobs that an execution has paid for."""
        sagemaker, run_id = self.client("sagemaker"), self.run_id(execution)
        trained = sagemaker.get_paginator("list_training_jobs").paginate(NameContains=run_id)
        tuned = sagemaker.get_paginator("list_hyper_parameter_tuning_jobs").paginate(NameContains=run_id)
        names = [job["TrainingJobName"] for page in trained for job in page["TrainingJobSummaries"]]
        return names + [
            job["HyperParameterTuningJobName"] for page in tuned for job in page["HyperParameterTuningJobSummaries"]
        ]

    def _recovery(self) -> list[str]:
        """The last that RecoverDeploy said."""
        logs, group = self.client("logs"), f"/aws/lambda/{self.name}-recover-deploy"
        return [event["message"] for event in logs.filter_log_events(logGroupName=group)["events"]][-10:]
