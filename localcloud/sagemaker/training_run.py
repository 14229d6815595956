"""One training job while it runs: from its instances and channels to its artifacts.

The job has a folder of its own that stands for the container's /opt/ml. Its process is started by the launcher of its
image; everything that touches S3 or the logs goes by the identity of the job's role.
"""

from __future__ import annotations

import logging
import math
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from localcloud.containers.images import LaunchError, TrainingContainer, UnknownImage
from localcloud.isolated import isolated
from localcloud.processes import ProcessSpec, Supervised, spawn
from localcloud.sagemaker import debugger
from localcloud.sagemaker.artifacts import model_artifacts_uri, upload_artifacts
from localcloud.sagemaker.channels import download_channel
from localcloud.sagemaker.checkpoints import Checkpoints
from localcloud.sagemaker.host import host_environment
from localcloud.sagemaker.instances import Instance, free_port
from localcloud.sagemaker.logs import LogStream
from localcloud.sagemaker.metrics import Metrics
from localcloud.sagemaker.objects import Location, StoredObject, TransferError
from localcloud.sagemaker.training_records import KIND, LONGEST_REASON, WAITED_TOO_LONG, enter, shortened

if TYPE_CHECKING:
    from localcloud.sagemaker.training_jobs import TrainingJobs

logger = logging.getLogger(__name__)

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
CLOSE_GRACE_SECONDS = 2.0
POLL_SECONDS = 0.5
SPOT_INTERRUPTION = "SpotInterruption"
NO_CAPACITY = "Unable to provision requested ML compute capacity. Please retry using a different ML instance type."


class JobStopping(Exception):
    """The job is to stop before it went any further."""


class JobFailed(Exception):
    """The job ends Failed with this reason."""


class NoCapacity(Exception):
    """There are no instances for the job."""


class WaitedTooLong(Exception):
    """A job of managed spot training had no instances within MaxWaitTimeInSeconds."""


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
        self._is_isolated = request.get("EnableNetworkIsolation", False)
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
        self._wait_deadline = monotonic() + stopping.get("MaxWaitTimeInSeconds", math.inf)

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
        launch = self._jobs.account.images.training(request["AlgorithmSpecification"]["TrainingImage"])
        try:
            s3, logs = (self._jobs.account.ports.client(name, self._role) for name in ("s3", "logs"))
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
        faults = self._jobs.account.faults
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
        longest = self._wait_deadline - monotonic()
        self._jobs.account.faults.delay(min(seconds, longest), self._ended_early)
        if self._ending():
            raise JobStopping
        if seconds > longest and monotonic() >= self._wait_deadline:
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
            **({} if self._is_isolated else self._jobs.account.ports.role_environment(self._role)),
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
                cut_off = replace(spec, argv=isolated(spec.argv)) if self._is_isolated else spec
                instance.process = spawn(cut_off, self._reader(instance))
        started = monotonic()
        deadline = min(started + self._longest_seconds - self._trained_seconds, self._wait_deadline)
        checkpoints_due = started + self._jobs.checkpoint_seconds
        failed: Instance | None = None
        while (running := _first_running(instances)) is not None:
            running.wait(min(POLL_SECONDS, max(0.0, deadline - monotonic())))
            if not (failed or self._ending() or self._timed_out or self._interruption) and (
                failed := _first_failed(instances)
            ):
                self._end_processes(0)
            for instance in instances:
                instance.log.flush()
            self._record_metrics()
            if monotonic() >= checkpoints_due:
                for folder in kept:
                    folder.try_upload_changes()
                checkpoints_due = monotonic() + self._jobs.checkpoint_seconds
            if monotonic() >= deadline and not self._timed_out:
                self._timed_out = WAITED_TOO_LONG if deadline == self._wait_deadline else "MaxRuntimeExceeded"
                deadline = math.inf
                self._end_processes(self._jobs.stop_grace_seconds)
            if not (failed or self._ending() or self._timed_out) and _first_running(instances):
                self._interrupt(monotonic() - started)
        self._trained_seconds += monotonic() - started
        return failed or _first_failed(instances)

    def _interrupt(self, running_seconds: float) -> None:
        """Begin to take the instances away, if they are of managed spot training and a fault says so."""
        if self._interruption is None and self._request.get("EnableManagedSpotTraining"):
            faults = self._jobs.account.faults
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
