"""Training jobs: the API's actions, and the thread that runs each job from its channels to its artifacts.

A job has a folder of its own that stands for the container's /opt/ml. Its process is started by the launcher of its
image; everything that touches S3 or the logs goes by the identity of the job's role. What the records keep is all that
is left when it has ended.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from localcloud.containers.images import LaunchError, TrainingContainer, UnknownImage
from localcloud.processes import ProcessSpec, Supervised, spawn
from localcloud.sagemaker import debugger
from localcloud.sagemaker.artifacts import model_artifacts_uri, upload_artifacts
from localcloud.sagemaker.channels import download_channel
from localcloud.sagemaker.checkpoints import Checkpoints
from localcloud.sagemaker.errors import ServiceError, resource_in_use, unsupported, validation_error
from localcloud.sagemaker.instances import Instance, free_port
from localcloud.sagemaker.listing import list_page
from localcloud.sagemaker.logs import LogStream
from localcloud.sagemaker.metrics import Metrics, compile_definitions
from localcloud.sagemaker.objects import Location, ObjectCache, StoredObject, TransferError
from localcloud.sagemaker.store import RecordExists
from localcloud.sagemaker.validation import Support, refuse_unsupported

if TYPE_CHECKING:
    from localcloud.sagemaker.service import SageMaker

logger = logging.getLogger(__name__)

KIND = "training-job"
ENDED = ("Completed", "Failed", "Stopped")
LOG_GROUP = "/aws/sagemaker/TrainingJobs"
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
MOST_INSTANCES = 16  # each is a process of this machine
CACHE_LIMIT_BYTES = 20 << 30
STOP_GRACE_SECONDS = 120.0  # AWS's: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_StopTrainingJob.html
CLOSE_GRACE_SECONDS = 2.0
CLOSE_SECONDS = 8.0
POLL_SECONDS = 0.5
CHECKPOINT_SECONDS = 5.0
LONGEST_REASON = 1024
SPOT_INTERRUPTION = "SpotInterruption"
WAITED_TOO_LONG = "MaxWaitTimeExceeded"
NO_CAPACITY = "Unable to provision requested ML compute capacity. Please retry using a different ML instance type."

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
        "EnableNetworkIsolation": ((False,), "a process cannot be cut off from the network here"),
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


class JobEnded(Exception):
    """The job has ended: its record does not change any more."""


class JobStopping(Exception):
    """The job is to stop before it went any further."""


class JobFailed(Exception):
    """The job ends Failed with this reason."""


class NoCapacity(Exception):
    """There are no instances for the job."""


class WaitedTooLong(Exception):
    """A job of managed spot training had no instances within MaxWaitTimeInSeconds."""


class TrainingJobs:
    """`changed` is notified whenever any job changes. `stop_grace_seconds` is the time between SIGTERM and SIGKILL,
    `checkpoint_seconds` that between two uploads of checkpoints while a job runs.
    """

    def __init__(self, service: SageMaker):
        self.service = service
        self.store = service.store
        self.cache = ObjectCache(service.home / "cache" / "objects", CACHE_LIMIT_BYTES)
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
        arn = self.service.arn(f"training-job/{name}")
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
            self.service.tags.register(arn, parameters.get("Tags"))
            self._runs[name] = run
        self.announce(record)
        run.start()
        return {"TrainingJobArn": arn}

    def check(self, parameters: Mapping[str, Any]) -> None:
        """Raise the ServiceError with which CreateTrainingJob would answer a validated request, whatever its name."""
        refuse_unsupported("CreateTrainingJob", parameters, SUPPORT)
        _check(parameters)
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
        try:
            self.service.ports.publish_event(
                "SageMaker Training Job State Change",
                state_change_detail(record, self.service.tags.of(record["TrainingJobArn"])),
                [record["TrainingJobArn"]],
            )
        except Exception:
            logger.exception("no event for %s", record["TrainingJobArn"])
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
        return self.service.home / "jobs" / hashlib.sha256(name.encode()).hexdigest()[:12]

    def scratch(self, name: str) -> Path:
        """Return a job's TMPDIR: outside home because paths of sockets are at most 107 bytes long, named so that a
        restart finds it.
        """
        home = hashlib.sha256(str(self.service.home.resolve()).encode()).hexdigest()[:12]
        return Path(tempfile.gettempdir(), f"sagemaker-{home}-{self.folder(name).name}")

    def _clear_up_after_crash(self) -> None:
        shutil.rmtree(self.service.home / "jobs", ignore_errors=True)
        for leftover in self.scratch("").parent.glob(self.scratch("").name.rpartition("-")[0] + "-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        for record in self.store.list(KIND):
            if record["TrainingJobStatus"] not in ENDED:
                self.store.update(KIND, record["TrainingJobName"], _fail_interrupted)


def _fail_interrupted(job: dict[str, Any]) -> None:
    enter(job, "Failed", "Failed", "InternalServerError: the local cloud ended while this job was running")


class TrainingRun(threading.Thread):
    """One job, from Starting to its end. It never raises: what goes wrong is the job's FailureReason."""

    def __init__(self, jobs: TrainingJobs, name: str, request: Mapping[str, Any], arn: str, cpus: int):
        super().__init__(name=f"training job {name}", daemon=True)
        self._jobs = jobs
        self._name = name
        self._request = request
        self._arn = arn
        self._cpus = cpus
        self._folder = jobs.folder(name)
        self._hosts = [f"algo-{number}" for number in range(1, request["ResourceConfig"]["InstanceCount"] + 1)]
        self._role = request["RoleArn"]
        self.metrics = Metrics(request["AlgorithmSpecification"].get("MetricDefinitions", []))
        self.ended = threading.Event()
        self._stopping = threading.Event()
        self._closing = threading.Event()
        self._ended_early = threading.Event()
        self._instances: list[Instance] = []
        self._instances_lock = threading.Lock()
        self._timed_out: str | None = None
        self._interruption: Mapping[str, Any] | None = None
        self._trained_seconds = 0.0
        stopping = request["StoppingCondition"]
        self._longest_seconds: float = stopping.get("MaxRuntimeInSeconds", 86400)
        self._wait_deadline = time.monotonic() + stopping.get("MaxWaitTimeInSeconds", math.inf)

    def stop(self) -> None:
        """Begin to stop: the status is Stopping at once, SIGTERM goes out, SIGKILL after the grace."""
        self._enter("Stopping", "Stopping")
        self._stopping.set()
        self._ended_early.set()
        self._end_processes(self._jobs.stop_grace_seconds)

    def close(self) -> None:
        """The cloud goes: end the process soon and upload nothing."""
        self._closing.set()
        self._ended_early.set()
        self._end_processes(CLOSE_GRACE_SECONDS)

    def run(self) -> None:
        try:
            status, secondary, reason = self._run()
        except JobStopping:
            status, secondary, reason = "Stopped", "Stopped", None
        except WaitedTooLong:
            status, secondary, reason = "Stopped", WAITED_TOO_LONG, None
        except (JobFailed, TransferError, LaunchError, UnknownImage) as error:
            status, secondary, reason = "Failed", "Failed", shortened(f"ClientError: {error}", "")
        except NoCapacity as error:
            status, secondary, reason = "Failed", "Failed", f"CapacityError: {error}"
        except Exception as error:
            logger.exception("training job %s", self._name)
            status, secondary, reason = "Failed", "Failed", shortened(f"InternalServerError: {error!r}", "")
        if self._closing.is_set():
            status, secondary = "Failed", "Failed"
            reason = "InternalServerError: the local cloud was stopped while this job was running"
        elif self._stopping.is_set():
            status, secondary, reason = "Stopped", "Stopped", None
        self._end_processes(0)
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.rmtree(self._jobs.scratch(self._name), ignore_errors=True)
        try:
            self._enter(status, secondary, reason)
        finally:
            self.ended.set()

    def _run(self) -> tuple[str, str, str | None]:
        request = self._request
        launch = self._jobs.service.images.training(request["AlgorithmSpecification"]["TrainingImage"])
        try:
            s3, logs = (self._jobs.service.ports.client(name, self._role) for name in ("s3", "logs"))
        except ClientError as error:
            raise JobFailed(f"Could not assume role {self._role}: {error}") from error
        while True:
            self._wait_for_instances()
            instances = self._new_instances(logs)
            self._enter("InProgress", "Downloading")
            for instance in instances:
                instance.lay_out(request, self._hosts)
            kept = [folder for instance in instances for folder in self._download(s3, instance)]
            self._enter("InProgress", "Training")
            rendezvous_port = free_port()
            try:
                specs = [launch(self._container(s3, instance, rendezvous_port)) for instance in instances]
                failed = self._train(instances, specs, kept)
            except (LaunchError, TransferError) as error:
                instances[0].log.write(str(error))
                raise
            finally:
                for instance in instances:
                    instance.log.flush()
            if self._interruption is None or self._ending():
                break
            self._start_again(kept)
        if self._closing.is_set():
            raise JobStopping
        self._record_metrics()
        with suppress(JobStopping):  # what a stopped job saved is uploaded as well
            self._enter("InProgress", "Uploading")
        try:
            folders = [instance.opt_ml for instance in instances]
            upload_artifacts(s3, request["OutputDataConfig"], self._name, folders)
            for folder in kept:
                folder.upload_changes()
        except TransferError as error:
            if failed is None:
                raise
            logger.warning("training job %s failed, and its output could not be uploaded: %s", self._name, error)
        if self._timed_out:
            return "Stopped", self._timed_out, None
        if failed is not None:
            return "Failed", "Failed", _failure_reason(failed)
        return "Completed", "Completed", None

    def _wait_for_instances(self) -> None:
        """Start at once, unless a fault has it otherwise. Raises NoCapacity and JobStopping."""
        faults = self._jobs.service.faults
        fault = faults.take("StartDelay", self._name)
        self._wait(fault.options["Seconds"] if fault else 0)
        if faults.take("InsufficientCapacity", self._name):
            raise NoCapacity(NO_CAPACITY)

    def _start_again(self, kept: Sequence[Checkpoints]) -> None:
        """Give up the instances of managed spot training, but for their checkpoints; return when there are new ones.

        Raises WaitedTooLong and JobStopping.
        """
        interruption, self._interruption = self._interruption, None
        for folder in kept:
            folder.try_upload_changes()
        self._enter("InProgress", "Interrupted")
        shutil.rmtree(self._folder)
        shutil.rmtree(self._jobs.scratch(self._name))
        self._wait(interruption["WaitSeconds"] if interruption else 0)
        self._enter("InProgress", "Starting")

    def _wait(self, seconds: float) -> None:
        """Raises WaitedTooLong and JobStopping."""
        too_long = time.monotonic() + seconds > self._wait_deadline
        self._ended_early.wait(max(0.0, self._wait_deadline - time.monotonic()) if too_long else seconds)
        if self._ending():
            raise JobStopping
        if too_long:
            raise WaitedTooLong

    def _new_instances(self, logs: Any) -> list[Instance]:
        started = int(time.time())
        scratch = self._jobs.scratch(self._name)
        instances = [
            Instance(
                host, self._folder / host, scratch / host, LogStream(logs, LOG_GROUP, f"{self._name}/{host}-{started}")
            )
            for host in self._hosts
        ]
        with self._instances_lock:
            self._instances = instances
        return instances

    def _download(self, s3: Any, instance: Instance) -> list[Checkpoints]:
        """Fill an instance's folders; return those that are to be uploaded while it runs."""
        shard = (self._hosts.index(instance.name), len(self._hosts))
        try:
            for channel in self._request.get("InputDataConfig", []):
                folder = instance.opt_ml / "input" / "data" / channel["ChannelName"]
                folder.mkdir()
                download_channel(self._jobs.cache, s3, self._role, channel, folder, shard)
                if self._ending():
                    raise JobStopping
            kept = []
            if configuration := self._request.get("CheckpointConfig"):
                folder = Path(instance.local(configuration.get("LocalPath", "/opt/ml/checkpoints")))
                kept.append(Checkpoints(s3, Location.parse(configuration["S3Uri"]), folder))
                kept[0].download(self._jobs.cache, self._role)
        except TransferError as error:
            raise JobFailed(f"Data download failed:{error}") from error
        for output, configuration in debugger.outputs(self._request):
            folder = Path(instance.local(configuration["LocalPath"]))
            kept.append(Checkpoints(s3, debugger.destination(output, configuration, self._name), folder))
        return kept

    def _container(self, s3: Any, instance: Instance, rendezvous_port: int) -> TrainingContainer:
        def download(uri: str, file: Path) -> None:
            try:
                location = Location.parse(uri)
                head = s3.head_object(Bucket=location.bucket, Key=location.key)
                stored = StoredObject(location, head["ContentLength"], head["ETag"])
                self._jobs.cache.fetch(s3, self._role, [(stored, file)])
            except (ValueError, TransferError, ClientError) as error:
                raise LaunchError(f"cannot download {uri}: {error}") from error

        def log_now(line: str) -> None:
            instance.log.write(line)
            instance.log.flush()

        algorithm = self._request["AlgorithmSpecification"]
        cpus = max(1, self._cpus // len(self._hosts))
        environment = {
            **host_environment(),
            "HOME": str(instance.home),
            "TMPDIR": str(instance.scratch),
            **self._jobs.service.ports.role_environment(self._role),
            "TRAINING_JOB_NAME": self._name,
            "TRAINING_JOB_ARN": self._arn,
            "OMP_NUM_THREADS": str(cpus),
            **{name: instance.local(value) for name, value in self._request.get("Environment", {}).items()},
        }
        hyperparameters = self._request.get("HyperParameters", {})
        return TrainingContainer(
            opt_ml=instance.opt_ml,
            hyperparameters={name: instance.local(value) for name, value in hyperparameters.items()},
            environment=environment,
            entrypoint=tuple(map(instance.local, algorithm.get("ContainerEntrypoint", []))),
            arguments=tuple(map(instance.local, algorithm.get("ContainerArguments", []))),
            cpus=cpus,
            hosts=tuple(self._hosts),
            host=instance.name,
            rendezvous_port=rendezvous_port,
            download=download,
            log=log_now,
        )

    def _train(
        self, instances: Sequence[Instance], specs: Sequence[ProcessSpec], kept: Sequence[Checkpoints]
    ) -> Instance | None:
        """Run the containers until all have ended; return the first that failed. When one fails, the others are ended.

        Raises JobStopping if they were not even started because the job is to end.
        """
        with self._instances_lock:
            if self._ending():
                raise JobStopping
            for instance, spec in zip(instances, specs, strict=True):
                instance.process = spawn(spec, self._reader(instance))
        started = time.monotonic()
        deadline = min(started + self._longest_seconds - self._trained_seconds, self._wait_deadline)
        checkpoints_due = started + self._jobs.checkpoint_seconds
        failed: Instance | None = None
        while (running := _first_running(instances)) is not None:
            running.wait(min(POLL_SECONDS, max(0.0, deadline - time.monotonic())))
            if not (failed or self._ending() or self._timed_out or self._interruption) and (
                failed := _first_failed(instances)
            ):
                self._end_processes(0)
            for instance in instances:
                instance.log.flush()
            self._record_metrics()
            if time.monotonic() >= checkpoints_due:
                for folder in kept:
                    folder.try_upload_changes()
                checkpoints_due = time.monotonic() + self._jobs.checkpoint_seconds
            if time.monotonic() >= deadline and not self._timed_out:
                self._timed_out = WAITED_TOO_LONG if deadline == self._wait_deadline else "MaxRuntimeExceeded"
                deadline = math.inf
                self._end_processes(self._jobs.stop_grace_seconds)
            if not (failed or self._ending() or self._timed_out) and _first_running(instances):
                self._interrupt(time.monotonic() - started)
        self._trained_seconds += time.monotonic() - started
        return failed or _first_failed(instances)

    def _interrupt(self, running_seconds: float) -> None:
        """Begin to take the instances away, if they are of managed spot training and a fault says so."""
        if self._interruption is None and self._request.get("EnableManagedSpotTraining"):
            faults = self._jobs.service.faults
            fault = faults.take(SPOT_INTERRUPTION, self._name, lambda o: running_seconds >= o["AfterSeconds"])
            if fault:
                self._interruption = fault.options
                self._end_processes(fault.options["GraceSeconds"])

    def _reader(self, instance: Instance) -> Callable[[str], None]:
        def read(line: str) -> None:
            instance.log.write(line)
            instance.tail.append(line)
            self.metrics.read(line, datetime.now(UTC))

        return read

    def _record_metrics(self) -> None:
        final = self.metrics.final()
        if final and final != self._jobs.describe_training_job({"TrainingJobName": self._name}).get(
            "FinalMetricDataList"
        ):
            self._jobs.store.update(KIND, self._name, lambda job: job.update(FinalMetricDataList=final))
            with self._jobs.changed:
                self._jobs.changed.notify_all()

    def _enter(self, status: str, secondary: str, reason: str | None = None) -> None:
        """Raises JobEnded, and JobStopping for a step forward of a job that is being stopped."""

        def change(job: dict[str, Any]) -> None:
            if status == "InProgress" and job["TrainingJobStatus"] == "Stopping":
                raise JobStopping
            if secondary in ("Completed", "Stopped", "MaxRuntimeExceeded", WAITED_TOO_LONG):
                job["ModelArtifacts"] = {"S3ModelArtifacts": model_artifacts_uri(job["OutputDataConfig"], self._name)}
            enter(job, status, secondary, reason)

        self._jobs.announce(self._jobs.store.update(KIND, self._name, change))

    def _end_processes(self, grace_seconds: float) -> None:
        with self._instances_lock:
            for instance in self._instances:
                if instance.process is not None:
                    instance.process.begin_termination(grace_seconds)

    def _ending(self) -> bool:
        return self._stopping.is_set() or self._closing.is_set()


def _first_running(instances: Sequence[Instance]) -> Supervised | None:
    processes = (instance.process for instance in instances)
    return next((process for process in processes if process is not None and process.exit_code is None), None)


def _first_failed(instances: Sequence[Instance]) -> Instance | None:
    return next((instance for instance in instances if _exit_code(instance)), None)


def _exit_code(instance: Instance) -> int | None:
    return None if instance.process is None else instance.process.exit_code


def _failure_reason(instance: Instance) -> str:
    failure = instance.opt_ml / "output" / "failure"
    ending = f", exit code: {_exit_code(instance)}"
    if failure.is_file():
        return shortened(f"AlgorithmError: {failure.read_text(errors='replace').strip()}", ending)
    tail = "\n".join(instance.tail).strip()
    beginning = "AlgorithmError: "
    return beginning + tail[-(LONGEST_REASON - len(beginning) - len(ending)) :] + ending


MESSAGES = {
    "Starting": "Launching requested ML instances",
    "Interrupted": "The instances of managed spot training were interrupted",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Uploading": "Uploading generated training model",
    "Stopping": "Stopping the training job",
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopped": "Training job stopped",
    WAITED_TOO_LONG: "Training job wait time exceeded MaxWaitTimeInSeconds provided",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
}


def enter(job: dict[str, Any], status: str, secondary: str, reason: str | None = None) -> None:
    """Move a job's record to a status: transitions, times, reason. Raises JobEnded if it is in its last one already."""
    if job["TrainingJobStatus"] in ENDED:
        raise JobEnded
    now = datetime.now(UTC)
    transitions = job["SecondaryStatusTransitions"]
    transitions[-1].setdefault("EndTime", now)
    transition = {"Status": secondary, "StartTime": now, "StatusMessage": MESSAGES[secondary]}
    transitions.append(transition)
    job.update(TrainingJobStatus=status, SecondaryStatus=secondary, LastModifiedTime=now)
    if secondary == "Downloading":
        job.setdefault("TrainingStartTime", now)
    if status in ENDED:
        transition["EndTime"] = now
        job["TrainingEndTime"] = now
        if "TrainingStartTime" in job:
            seconds = max(1, math.ceil((now - job["TrainingStartTime"]).total_seconds()))
            job.update(TrainingTimeInSeconds=seconds, BillableTimeInSeconds=seconds)
    if reason is not None:
        job["FailureReason"] = reason
        transition["StatusMessage"] = reason


def state_change_detail(record: Mapping[str, Any], tags: list[dict[str, str]]) -> dict[str, Any]:
    """Return the event's detail; times are milliseconds since 1970, tags a map.

    https://docs.aws.amazon.com/sagemaker/latest/dg/automating-sagemaker-with-eventbridge.html"""
    members = (
        "TrainingJobName",
        "TrainingJobArn",
        "TrainingJobStatus",
        "SecondaryStatus",
        "FailureReason",
        "HyperParameters",
        "AlgorithmSpecification",
        "RoleArn",
        "InputDataConfig",
        "OutputDataConfig",
        "ResourceConfig",
        "VpcConfig",
        "StoppingCondition",
        "CreationTime",
        "TrainingStartTime",
        "TrainingEndTime",
        "LastModifiedTime",
        "SecondaryStatusTransitions",
        "ModelArtifacts",
        "FinalMetricDataList",
        "TrainingTimeInSeconds",
        "BillableTimeInSeconds",
    )
    detail = {member: record[member] for member in members if member in record}
    return _milliseconds({**detail, "Tags": {tag["Key"]: tag["Value"] for tag in tags}})


def shortened(text: str, ending: str) -> str:
    """Return text and ending in at most as many characters as a FailureReason has."""
    return text[: LONGEST_REASON - len(ending)] + ending


def host_environment() -> dict[str, str]:
    """Return what a process keeps of the host's environment: where programs, certificates, proxies and accelerators
    are found.

    Threads of OpenMP wait asleep: spinning, as they do by default, takes the very cores that the other containers of
    this machine compute on (two jobs of two threads on two busy cores: 47 images a second spinning, 220 asleep).
    """
    kept = ("PATH", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
    environment = {name: os.environ[name] for name in (*kept, *proxies) if name in os.environ}
    if any(name in environment for name in proxies):  # the cloud itself is never behind the proxy
        for name in ("NO_PROXY", "no_proxy"):
            environment[name] = ",".join(filter(None, [environment.get(name), "localhost,127.0.0.1"]))
    return {"LANG": "C.UTF-8", "OMP_WAIT_POLICY": "PASSIVE", **environment}


def _check(parameters: Mapping[str, Any]) -> None:
    """Check what botocore's model cannot say. Raises ServiceError ValidationException."""
    for required in ("ResourceConfig", "StoppingCondition"):
        if required not in parameters:
            raise validation_error(f"{required} is required")
    count = parameters["ResourceConfig"].get("InstanceCount")
    if not count:
        raise validation_error("ResourceConfig.InstanceCount must be at least 1")
    if count > MOST_INSTANCES:
        raise unsupported(f"CreateTrainingJob: ResourceConfig.InstanceCount={count}", f"at most {MOST_INSTANCES} here")
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


def _milliseconds(value: Any) -> Any:
    if isinstance(value, datetime):
        return int(value.timestamp() * 1000)
    if isinstance(value, dict):
        return {key: _milliseconds(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_milliseconds(item) for item in value]
    return value
