"""Training jobs: the API's actions.

A job that runs is a TrainingRun; what the records keep is all that is left when it has ended.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from localcloud.sagemaker import debugger
from localcloud.sagemaker.account import Account
from localcloud.sagemaker.errors import ServiceError, resource_in_use, validation_error
from localcloud.sagemaker.host import CPUS
from localcloud.sagemaker.listing import list_page
from localcloud.sagemaker.objects import ObjectCache
from localcloud.sagemaker.store import RecordExists
from localcloud.sagemaker.training_records import ENDED, KIND, JobEnded, enter, state_change_detail
from localcloud.sagemaker.training_requests import LIST_SUPPORT, SUPPORT, check_request
from localcloud.sagemaker.training_run import TrainingRun
from localcloud.sagemaker.validation import refuse_unsupported

CACHE_LIMIT_BYTES = 20 << 30
STOP_GRACE_SECONDS = 120.0  # AWS's: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_StopTrainingJob.html
CLOSE_SECONDS = 20.0
CHECKPOINT_SECONDS = 5.0


class TrainingJobs:
    """`changed` is notified whenever any job changes. `stop_grace_seconds` is the time between SIGTERM and SIGKILL,
    `checkpoint_seconds` that between two uploads of checkpoints while a job runs.
    """

    def __init__(self, account: Account):
        self.account = account
        self.store = account.store
        self.cache = ObjectCache(account.home / "cache" / "objects", CACHE_LIMIT_BYTES)
        self.changed = threading.Condition()
        self.stop_grace_seconds = STOP_GRACE_SECONDS
        self.checkpoint_seconds = CHECKPOINT_SECONDS
        self._runs: dict[str, TrainingRun] = {}
        self._creating = threading.Lock()
        self._closing = False
        self._clear_up_after_crash()

    def create_training_job(
        self, parameters: dict[str, Any], tuning_job_arn: str | None = None, cpus: int = CPUS
    ) -> dict[str, Any]:
        """cpus: the job's share of the machine's cores, told to it as SM_NUM_CPUS and OMP_NUM_THREADS."""
        self.check(parameters)
        name = parameters["TrainingJobName"]
        arn = self.account.arn(f"training-job/{name}")
        now = datetime.now(UTC)
        request = {member: value for member, value in parameters.items() if member != "Tags"}
        record = {
            "EnableNetworkIsolation": False,
            "EnableInterContainerTrafficEncryption": False,
            "EnableManagedSpotTraining": False,
            **request,
            "TrainingJobArn": arn,
            "TuningJobArn": tuning_job_arn,
            "TrainingJobStatus": "InProgress",
            "SecondaryStatus": "Starting",
            "SecondaryStatusTransitions": [
                {"Status": "Starting", "StartTime": now, "StatusMessage": "Launching requested ML instances"}
            ],
            "CreationTime": now,
            "LastModifiedTime": now,
        }
        run = TrainingRun(self, name, request, arn, cpus)
        with self._creating:
            if self._closing:
                raise ServiceError("ServiceUnavailable", "The local cloud is stopping", 503)
            try:
                self.store.create(KIND, name, record)
            except RecordExists as error:
                raise resource_in_use(
                    "Training job names must be unique within an AWS account and region, and a training job with this "
                    f"name already exists ({arn})"
                ) from error
            self.account.tags.register(arn, parameters.get("Tags"))
            self._runs[name] = run
        self.announce(record)
        run.start()
        return {"TrainingJobArn": arn}

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Raise the ServiceError with which CreateTrainingJob would answer a validated request, whatever its name."""
        refuse_unsupported("CreateTrainingJob", parameters, SUPPORT)
        check_request(parameters)
        debugger.check(parameters)

    def describe_training_job(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        record = self.store.get(KIND, parameters["TrainingJobName"])
        if record is None:
            raise validation_error("Requested resource not found.")
        return record

    def stop_training_job(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        with self._creating:
            run = self._runs.get(parameters["TrainingJobName"])
        status = self.describe_training_job(parameters)["TrainingJobStatus"]
        if status == "Stopping":
            return {}
        try:
            if run is None:
                raise JobEnded
            run.stop()
        except JobEnded:
            status = self.describe_training_job(parameters)["TrainingJobStatus"]
            raise validation_error(
                f"The request was rejected because the training job is in status {status}."
            ) from None
        return {}

    def check_interruption(self, name: str) -> None:
        """Raise the ServiceError with which a spot interruption of a job that cannot have one is refused."""
        record = self.store.get(KIND, name)
        if record is None:
            return
        if record["TrainingJobStatus"] in ENDED:
            raise validation_error(f"The training job {name} cannot be interrupted: it has ended.")
        if not record["EnableManagedSpotTraining"]:
            raise validation_error(f"The training job {name} cannot be interrupted: it is not managed spot training.")

    def list_training_jobs(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        refuse_unsupported("ListTrainingJobs", parameters, LIST_SUPPORT)
        return list_page(
            parameters,
            self.store.list(KIND),
            result="TrainingJobSummaries",
            name="TrainingJobName",
            status="TrainingJobStatus",
        )

    def metric_history(self, name: str) -> dict[str, list[tuple[datetime, float]]]:
        """Return every value of each metric so far, with its time, oldest first; empty if the job did not run in this
        process.
        """
        run = self._runs.get(name)
        return run.metrics.history() if run else {}

    def wait(self, name: str, timeout_seconds: float | None = None) -> dict[str, Any]:
        """Wait until a job has ended (or the time is over) and return its description."""
        run = self._runs.get(name)
        if run is not None:
            run.ended.wait(timeout_seconds)
        return self.describe_training_job({"TrainingJobName": name})

    def announce(self, record: Mapping[str, Any]) -> None:
        """Publish a job's state as the event that AWS has for it."""
        kind, arn = "SageMaker Training Job State Change", record["TrainingJobArn"]
        self.account.announce(kind, arn, lambda tags: state_change_detail(record, tags))
        with self.changed:
            self.changed.notify_all()

    def close(self) -> None:
        """End every job and wait until its processes are gone. (A job that is still building its environment has none
        yet; what builds ends with the cloud.)"""
        with self._creating:
            self._closing = True
            runs = list(self._runs.values())
        for run in runs:
            run.close()
        deadline = time.monotonic() + CLOSE_SECONDS
        for run in runs:
            run.ended.wait(max(0.0, deadline - time.monotonic()))

    def folder(self, name: str) -> Path:
        """Return a job's own folder; <instance>/opt/ml is a container's /opt/ml."""
        return self.account.home / "jobs" / hashlib.sha256(name.encode()).hexdigest()[:12]

    def scratch(self, name: str) -> Path:
        """Return a job's TMPDIR: outside home because paths of sockets are at most 107 bytes long, named so that a
        restart finds it.
        """
        home = hashlib.sha256(str(self.account.home.resolve()).encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir(), f"sagemaker-{home}-{self.folder(name).name}")

    def _clear_up_after_crash(self) -> None:
        shutil.rmtree(self.account.home / "jobs", ignore_errors=True)
        for leftover in self.scratch("").parent.glob(self.scratch("").name.rpartition("-")[0] + "-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for record in self.store.list(KIND):
            if record["TrainingJobStatus"] not in ENDED:
                self.store.update(KIND, record["TrainingJobName"], _fail_interrupted)


def _fail_interrupted(job: dict[str, Any]) -> None:
    enter(job, "Failed", "Failed", "InternalServerError: the local cloud ended while this job was running")
