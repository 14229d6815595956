"""Hyperparameter tuning jobs: training jobs, some at a time, whose hyperparameters a search strategy chooses.

What a tuning job's description says of its trials is read from their own records; its own record lists them.
"""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
import threading
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Any

from localcloud.sagemaker.early_stopping import StoppingRule, resources, rule_of
from localcloud.sagemaker.errors import ServiceError, resource_in_use, resource_not_found, validation_error
from localcloud.sagemaker.host import CPUS
from localcloud.sagemaker.listing import list_page
from localcloud.sagemaker.search import STRATEGIES, RangeError, Search
from localcloud.sagemaker.store import RecordExists
from localcloud.sagemaker.training_records import ENDED
from localcloud.sagemaker.validation import Support, refuse_unsupported, validate
from localcloud.sagemaker.warm_start import check_parents, is_identical, parent_names

if TYPE_CHECKING:
    from localcloud.sagemaker.service import SageMaker

logger = logging.getLogger(__name__)

KIND = "hyper-parameter-tuning-job"
OBJECTIVE_HYPERPARAMETER = "_tuning_objective_metric"
MOST_ATTEMPTS = 5
"""A tuning job fails if so many of its training jobs have ended and none completed: AWS's rule, as it words it."""
LEAST_IMPROVEMENT = 0.01
"""A trial improves the objective if it is better than the best before by this share of it: AWS's 1 %."""

_CONFIG = "HyperParameterTuningJobConfig"
_DEFINITION = "TrainingJobDefinition"
_PASSED_ON = (  # the members of the definition that are members of CreateTrainingJob: it checks what is in them
    "AlgorithmSpecification",
    "RoleArn",
    "InputDataConfig",
    "OutputDataConfig",
    "ResourceConfig",
    "VpcConfig",
    "StoppingCondition",
    "EnableNetworkIsolation",
    "EnableInterContainerTrafficEncryption",
    "EnableManagedSpotTraining",
    "CheckpointConfig",
    "RetryStrategy",
    "Environment",
)
SUPPORT = Support(
    honoured=frozenset(
        {
            "HyperParameterTuningJobName",
            "Tags",
            "WarmStartConfig",
            f"{_CONFIG}.HyperParameterTuningJobObjective",
            f"{_CONFIG}.ResourceLimits.MaxNumberOfTrainingJobs",
            f"{_CONFIG}.ResourceLimits.MaxParallelTrainingJobs",
            f"{_CONFIG}.ResourceLimits.MaxRuntimeInSeconds",
            f"{_CONFIG}.StrategyConfig.HyperbandStrategyConfig",
            f"{_CONFIG}.TrainingJobEarlyStoppingType",
            f"{_CONFIG}.TuningJobCompletionCriteria.TargetObjectiveMetricValue",
            f"{_CONFIG}.TuningJobCompletionCriteria.BestObjectiveNotImproving",
            f"{_CONFIG}.ParameterRanges.ContinuousParameterRanges",
            f"{_CONFIG}.ParameterRanges.IntegerParameterRanges",
            f"{_CONFIG}.ParameterRanges.CategoricalParameterRanges",
            f"{_CONFIG}.RandomSeed",
            f"{_DEFINITION}.DefinitionName",
            f"{_DEFINITION}.StaticHyperParameters",
            *(f"{_DEFINITION}.{member}" for member in _PASSED_ON),
            f"{_DEFINITION}.HyperParameterTuningResourceConfig.InstanceType",
            f"{_DEFINITION}.HyperParameterTuningResourceConfig.InstanceCount",
            f"{_DEFINITION}.HyperParameterTuningResourceConfig.VolumeSizeInGB",
            f"{_DEFINITION}.HyperParameterTuningResourceConfig.VolumeKmsKeyId",
        }
    ),
    only={
        f"{_CONFIG}.Strategy": (STRATEGIES, f"there are {', '.join(STRATEGIES)}"),
        f"{_CONFIG}.TuningJobCompletionCriteria.ConvergenceDetected.CompleteOnConvergence": (
            ("Disabled",),
            "AWS does not publish how it detects convergence; BestObjectiveNotImproving is supported",
        ),
    },
)


class TuningJobs:
    def __init__(self, service: SageMaker):
        self.service = service
        self._store = service.store
        self._runs: dict[str, TuningRun] = {}
        self._fail_interrupted()

    def create_hyper_parameter_tuning_job(self, parameters: dict[str, Any]) -> dict[str, Any]:
        refuse_unsupported("CreateHyperParameterTuningJob", parameters, SUPPORT)
        name = parameters["HyperParameterTuningJobName"]
        config, definition, search, rule = _checked(parameters)
        warm_start = parameters.get("WarmStartConfig", {})
        check_parents(warm_start, config, definition, self.describe_hyper_parameter_tuning_job)
        for trial in self._parents_trials(warm_start):
            if trial["Finished"] and "FinalObjectiveMetricValue" in trial:
                search.learn(trial["HyperParameters"], trial["FinalObjectiveMetricValue"])
        arn = self.service.arn(f"hyper-parameter-tuning-job/{name}")
        tags = parameters.get("Tags", [])
        self.service.training_jobs.check(
            validate("CreateTrainingJob", training_job(definition, f"{name}-001", {}, tags))
        )
        now = datetime.now(UTC)
        record = {
            "HyperParameterTuningJobName": name,
            "HyperParameterTuningJobArn": arn,
            _CONFIG: config,
            _DEFINITION: definition,
            "WarmStartConfig": warm_start or None,
            "HyperParameterTuningJobStatus": "InProgress",
            "CreationTime": now,
            "LastModifiedTime": now,
            "Trials": [],
        }
        try:
            self._store.create(KIND, name, record)
        except RecordExists:
            raise resource_in_use(
                "Hyperparameter tuning job names must be unique within an AWS account and region, and a hyperparameter "
                f"tuning job with this name already exists ({arn})"
            ) from None
        self.service.tags.register(arn, tags)
        self._announce(name)
        self._runs[name] = TuningRun(self, name, definition, search, rule, config, tags)
        self._runs[name].start()
        return {"HyperParameterTuningJobArn": arn}

    def describe_hyper_parameter_tuning_job(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        name = parameters["HyperParameterTuningJobName"]
        record = self._store.get(KIND, name)
        if record is None:
            raise resource_not_found(
                f"Amazon SageMaker can't find a tuning job with the name {name}. "
                "Verify that you have provided the correct name and try again."
            )
        trials, warm_start = self.trials(record), record["WarmStartConfig"] or {}
        overall = [*self._parents_trials(warm_start), *trials] if is_identical(warm_start) else []
        return (
            record
            | _counters(trials)
            | {
                "BestTrainingJob": best(record, trials),
                "OverallBestTrainingJob": best(record, overall),
                "TuningJobCompletionDetails": {
                    "NumberOfTrainingJobsObjectiveNotImproving": not_improving(record[_CONFIG], trials)
                },
            }
        )

    def stop_hyper_parameter_tuning_job(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        name = parameters["HyperParameterTuningJobName"]
        status = self.describe_hyper_parameter_tuning_job(parameters)["HyperParameterTuningJobStatus"]
        if status == "Stopping":
            return {}
        if status != "InProgress" or not self.enter(name, "Stopping"):
            raise validation_error(f"The request was rejected because the tuning job is in status {status}.")
        self._runs[name].stop()
        return {}

    def list_hyper_parameter_tuning_jobs(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        records = self._store.list(KIND)
        for record in records:
            record.update(_counters(self.trials(record)))
            record["Strategy"] = record[_CONFIG]["Strategy"]
            record["ResourceLimits"] = record[_CONFIG]["ResourceLimits"]
        return list_page(
            parameters,
            records,
            result="HyperParameterTuningJobSummaries",
            name="HyperParameterTuningJobName",
            status="HyperParameterTuningJobStatus",
            sort_by="Name",
        )

    def list_training_jobs_for_hyper_parameter_tuning_job(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Sorted by FinalObjectiveMetricValue, jobs without one are left out, as on AWS."""
        trials = self.trials(self.describe_hyper_parameter_tuning_job(parameters))
        if parameters.get("SortBy") == "FinalObjectiveMetricValue":
            trials = [trial for trial in trials if "FinalObjectiveMetricValue" in trial]
        return list_page(
            parameters,
            trials,
            result="TrainingJobSummaries",
            name="TrainingJobName",
            status="TrainingJobStatus",
            sort_by="Name",
        )

    def trials(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The training jobs of a tuning job's record as TrainingJobSummaries, in the order of their start."""
        describe = self.service.training_jobs.describe_training_job
        return [
            summary(record, describe({"TrainingJobName": trial["TrainingJobName"]}), trial)
            for trial in record["Trials"]
        ]

    def _parents_trials(self, warm_start: Mapping[str, Any]) -> list[dict[str, Any]]:
        records = (self._store.get(KIND, name) for name in parent_names(warm_start))
        return [trial for record in records if record is not None for trial in self.trials(record)]

    def add_trial(self, name: str, training_job_name: str, tuned: Mapping[str, str]) -> None:
        def change(record: dict[str, Any]) -> None:
            record["Trials"].append({"TrainingJobName": training_job_name, "TunedHyperParameters": dict(tuned)})
            record["LastModifiedTime"] = datetime.now(UTC)

        self._store.update(KIND, name, change)

    def note_finished(self, name: str, training_job_name: str) -> None:
        """A trial that was stopped had all the epochs that Hyperband gives: it may be the best."""

        def change(record: dict[str, Any]) -> None:
            for trial in record["Trials"]:
                if trial["TrainingJobName"] == training_job_name:
                    trial["Finished"] = True

        self._store.update(KIND, name, change)

    def enough(self, name: str) -> bool:
        """Whether one of the tuning job's completion criteria is met."""
        record = self._store.get(KIND, name)
        return record is not None and completed_by_criteria(record, self.trials(record))

    def enter(self, name: str, status: str, reason: str | None = None) -> bool:
        """Move a tuning job to a status; return False, and change nothing, if it has ended already."""
        entered = False

        def change(record: dict[str, Any]) -> None:
            nonlocal entered
            entered = record["HyperParameterTuningJobStatus"] not in ENDED
            if entered:
                _enter(record, status, reason)

        self._store.update(KIND, name, change)
        if entered:
            self._announce(name)
        return entered

    def close(self) -> None:
        """End every tuning job. Call it before the training jobs are closed: then no more of them are started."""
        runs = list(self._runs.values())
        for run in runs:
            run.close()
        for run in runs:
            run.join()

    def _announce(self, name: str) -> None:
        record = self.describe_hyper_parameter_tuning_job({"HyperParameterTuningJobName": name})
        arn = record["HyperParameterTuningJobArn"]
        try:
            self.service.ports.publish_event(
                "SageMaker HyperParameter Tuning Job State Change",
                state_change_detail(record, self.service.tags.of(arn)),
                [arn],
            )
        except Exception:
            logger.exception("no event for %s", arn)

    def _fail_interrupted(self) -> None:
        for record in self._store.list(KIND):
            if record["HyperParameterTuningJobStatus"] not in ENDED:
                reason = "InternalServerError: the local cloud ended while this tuning job was running"
                name = record["HyperParameterTuningJobName"]
                self._store.update(KIND, name, lambda record: _enter(record, "Failed", reason))  # noqa: B023


class TuningRun:
    """One tuning job: starts trials, tells the search of their ends, and ends when there is nothing left to do."""

    def __init__(
        self,
        jobs: TuningJobs,
        name: str,
        definition: Mapping[str, Any],
        search: Search,
        rule: StoppingRule | None,
        config: Mapping[str, Any],
        tags: list[dict[str, str]],
    ):
        self._jobs = jobs
        self._training_jobs = jobs.service.training_jobs
        self._name = name
        self._definition = definition
        self._search = search
        self._rule = rule
        self._objective = config["HyperParameterTuningJobObjective"]["MetricName"]
        self._parallel = min(config["ResourceLimits"]["MaxParallelTrainingJobs"], search.max_trials)
        self._tags = tags
        self._longest_seconds = config["ResourceLimits"].get("MaxRuntimeInSeconds", math.inf)
        self._first_second = monotonic()
        self._running: dict[str, int] = {}
        self._epochs_seen: dict[str, int] = {}
        self._stopped_early: set[str] = set()
        self._started = 0
        self._failed = 0
        self._completed = 0
        self._measured = 0
        self._enough = False
        self._trials_stopped = False
        self._stopping = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._end_in_a_status, name=f"tuning job {name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._wake()

    def close(self) -> None:
        self._closing.set()
        self._wake()

    def join(self) -> None:
        self._thread.join()

    def _end_in_a_status(self) -> None:
        try:
            status, reason = self._run()
        except ServiceError as error:
            status, reason = "Failed", f"{error.code}: {error.message}"
        except Exception as error:
            logger.exception("tuning job %s", self._name)
            status, reason = "Failed", f"InternalServerError: {error!r}"
        self._stop_trials()
        self._jobs.enter(self._name, status, reason and reason[:1024])

    def _run(self) -> tuple[str, str | None]:
        while True:
            self._take_ended_trials()
            self._stop_bad_trials()
            if self._closing.is_set():
                return "Failed", "InternalServerError: the local cloud was stopped while this tuning job was running"
            self._enough = self._enough or monotonic() - self._first_second >= self._longest_seconds
            if (self._stopping.is_set() or self._enough) and not self._trials_stopped:
                self._stop_trials()
                self._trials_stopped = True
            hopeless = self._failed >= MOST_ATTEMPTS and not self._completed
            while not (self._trials_stopped or hopeless) and len(self._running) < self._parallel and self._more():
                self._start_trial()
            if not self._running:
                return ("Stopped", None) if self._stopping.is_set() else self._verdict(hopeless)
            with self._training_jobs.changed:
                self._training_jobs.changed.wait_for(self._something_happened, timeout=1)

    def _start_trial(self) -> None:
        trial = self._search.ask()
        name = f"{self._name}-{trial.number + 1:03d}-{secrets.token_hex(4)}"
        self._training_jobs.create_training_job(
            training_job(self._definition, name, trial.values, self._tags),
            tuning_job_arn=self._jobs.service.arn(f"hyper-parameter-tuning-job/{self._name}"),
            cpus=max(1, CPUS // self._parallel),
        )
        self._jobs.add_trial(self._name, name, trial.values)
        self._running[name] = trial.number
        self._started += 1

    def _take_ended_trials(self) -> None:
        ended = [name for name in self._running if self._has_ended(name)]
        for name in ended:
            job = self._training_jobs.describe_training_job({"TrainingJobName": name})
            objective = final_objective(job, self._objective)
            number, values = self._running.pop(name), self._epochs(name)
            self._search.tell(number, objective)
            completed = job["TrainingJobStatus"] == "Completed"
            if self._rule is not None and job["TrainingJobStatus"] != "Failed":
                self._rule.ended(values)
                if name in self._stopped_early and self._rule.finished(len(values)):
                    self._jobs.note_finished(self._name, name)
                    completed = True
            self._completed += completed
            self._measured += completed and objective is not None
            self._failed += not completed and name not in self._stopped_early
        if ended:
            self._enough = self._enough or self._jobs.enough(self._name)

    def _stop_bad_trials(self) -> None:
        if self._rule is None:
            return
        for name, number in self._running.items():
            values, seen = self._epochs(name), self._epochs_seen.get(name, 0)
            self._epochs_seen[name] = len(values)
            epochs = (values[:epoch] for epoch in range(seen + 1, len(values) + 1))
            if any(self._rule.stops(number, epoch) for epoch in epochs) and self._trains(name):
                self._stopped_early.add(name)
                self._stop_trial(name)

    def _verdict(self, hopeless: bool) -> tuple[str, str | None]:
        if self._measured:
            return "Completed", None
        if self._completed:
            return "Failed", (
                f"No training job reported the objective metric {self._objective!r}: "
                "the Regex of its metric definition found no number in their logs."
            )
        if hopeless:
            return "Failed", (
                f"No training job succeeded after {MOST_ATTEMPTS} attempts. For additional details, please take a look "
                "at the training job failures by listing training jobs for the hyperparameter tuning job."
            )
        return "Failed", (
            "All training jobs failed. Please take a look at the training jobs failures to get more details."
        )

    def _stop_trials(self) -> None:
        for name in self._running:
            self._stop_trial(name)

    def _stop_trial(self, name: str) -> None:
        with contextlib.suppress(ServiceError):  # it has just ended
            self._training_jobs.stop_training_job({"TrainingJobName": name})

    def _more(self) -> bool:
        return self._started < self._search.max_trials

    def _something_happened(self) -> bool:
        newly_stopping = self._stopping.is_set() and not self._trials_stopped
        return (
            self._closing.is_set()
            or newly_stopping
            or any(map(self._has_ended, self._running))
            or any(self._epochs_seen.get(name, 0) < len(self._epochs(name)) for name in self._running if self._rule)
        )

    def _epochs(self, training_job_name: str) -> list[float]:
        """The objective after each epoch of a trial so far."""
        history = self._training_jobs.metric_history(training_job_name)
        return [value for _, value in history.get(self._objective, [])]

    def _has_ended(self, training_job_name: str) -> bool:
        job = self._training_jobs.describe_training_job({"TrainingJobName": training_job_name})
        return job["TrainingJobStatus"] in ENDED

    def _trains(self, training_job_name: str) -> bool:
        job = self._training_jobs.describe_training_job({"TrainingJobName": training_job_name})
        return job["SecondaryStatus"] == "Training"

    def _wake(self) -> None:
        with self._training_jobs.changed:
            self._training_jobs.changed.notify_all()


def training_job(
    definition: Mapping[str, Any], name: str, tuned: Mapping[str, str], tags: list[dict[str, str]]
) -> dict[str, Any]:
    """The CreateTrainingJob request of one trial. Each has a checkpoint folder of its own, named after it."""
    passed_on = {member: definition[member] for member in _PASSED_ON if member in definition}
    if resources := definition.get("HyperParameterTuningResourceConfig"):
        if "ResourceConfig" in definition:
            raise validation_error("Give either ResourceConfig or HyperParameterTuningResourceConfig, not both")
        passed_on["ResourceConfig"] = resources
    checkpoints = definition.get("CheckpointConfig")
    if checkpoints is not None:
        passed_on["CheckpointConfig"] = {**checkpoints, "S3Uri": f"{checkpoints['S3Uri'].rstrip('/')}/{name}"}
    return {
        "TrainingJobName": name,
        **passed_on,
        "HyperParameters": {**definition["StaticHyperParameters"], **tuned},
        "Tags": tags,
    }


def summary(record: Mapping[str, Any], job: Mapping[str, Any], trial: Mapping[str, Any]) -> dict[str, Any]:
    """A trial's HyperParameterTrainingJobSummary. job: its training job; trial: what the tuning job's record has."""
    objective = record[_CONFIG]["HyperParameterTuningJobObjective"]
    value = final_objective(job, objective["MetricName"])
    members = (
        "TrainingJobName",
        "TrainingJobArn",
        "CreationTime",
        "TrainingStartTime",
        "TrainingEndTime",
        "TrainingJobStatus",
        "FailureReason",
    )
    known = {member: job[member] for member in members if member in job} | {
        "TrainingJobDefinitionName": record[_DEFINITION].get("DefinitionName"),
        "TuningJobName": record["HyperParameterTuningJobName"],
        "TunedHyperParameters": trial["TunedHyperParameters"],
        "HyperParameters": job["HyperParameters"],
        "Finished": job["TrainingJobStatus"] == "Completed" or trial.get("Finished", False),
    }
    if job["TrainingJobStatus"] not in ENDED:
        return known | {"ObjectiveStatus": "Pending"}
    if value is None:
        return known | {"ObjectiveStatus": "Failed"}
    return known | {
        "ObjectiveStatus": "Succeeded",
        "FinalObjectiveMetricValue": value,
        "FinalHyperParameterTuningJobObjectiveMetric": {**objective, "Value": value},
    }


def best(record: Mapping[str, Any], trials: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The finished trial with the best objective; the earlier of equals."""
    measured = [trial for trial in trials if trial["Finished"] and "FinalObjectiveMetricValue" in trial]
    maximize = record[_CONFIG]["HyperParameterTuningJobObjective"]["Type"] == "Maximize"
    choose = max if maximize else min
    return choose(measured, key=lambda trial: trial["FinalObjectiveMetricValue"], default=None)


def completed_by_criteria(record: Mapping[str, Any], trials: list[dict[str, Any]]) -> bool:
    """Whether TuningJobCompletionCriteria are met: the target by a finished trial, or as many trials without one that
    improves on those before.

    https://docs.aws.amazon.com/sagemaker/latest/dg/automatic-model-tuning-progress.html
    """
    criteria = record[_CONFIG].get("TuningJobCompletionCriteria", {})
    target, leader = criteria.get("TargetObjectiveMetricValue"), best(record, trials)
    if target is not None and leader is not None:
        value = leader["FinalObjectiveMetricValue"]
        maximize = record[_CONFIG]["HyperParameterTuningJobObjective"]["Type"] == "Maximize"
        if value >= target if maximize else value <= target:
            return True
    patience = criteria.get("BestObjectiveNotImproving", {}).get("MaxNumberOfTrainingJobsNotImproving")
    return patience is not None and not_improving(record[_CONFIG], trials) >= patience


def not_improving(config: Mapping[str, Any], trials: list[dict[str, Any]]) -> int:
    """How many trials have ended, with an objective, since the last that improved the best one by 1 % or more."""
    sign = 1 if config["HyperParameterTuningJobObjective"]["Type"] == "Maximize" else -1
    measured = [trial for trial in trials if "FinalObjectiveMetricValue" in trial]
    leader, count = -math.inf, 0
    for trial in sorted(measured, key=lambda trial: trial["TrainingEndTime"]):
        value = sign * trial["FinalObjectiveMetricValue"]
        improves = leader == -math.inf or value - leader >= LEAST_IMPROVEMENT * abs(leader) > 0 or value > leader == 0
        leader, count = max(leader, value), 0 if improves else count + 1
    return count


def final_objective(job: Mapping[str, Any], metric_name: str) -> float | None:
    """The last value of the metric; None for a job that failed, whatever it printed before."""
    if job["TrainingJobStatus"] == "Failed":
        return None
    metrics = {metric["MetricName"]: metric["Value"] for metric in job.get("FinalMetricDataList", [])}
    return metrics.get(metric_name)


def state_change_detail(record: Mapping[str, Any], tags: list[dict[str, str]]) -> dict[str, Any]:
    """The event's detail; times are milliseconds since 1970, tags a map.

    https://docs.aws.amazon.com/sagemaker/latest/dg/automating-sagemaker-with-eventbridge.html"""
    members = (
        "HyperParameterTuningJobName",
        "HyperParameterTuningJobArn",
        _CONFIG,
        _DEFINITION,
        "HyperParameterTuningJobStatus",
        "TrainingJobStatusCounters",
        "ObjectiveStatusCounters",
        "FailureReason",
    )
    times = {
        member: int(record[member].timestamp() * 1000)
        for member in ("CreationTime", "HyperParameterTuningEndTime", "LastModifiedTime")
        if member in record
    }
    detail = {member: record[member] for member in members if member in record}
    return {**detail, **times, "Tags": {tag["Key"]: tag["Value"] for tag in tags}}


def _checked(parameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], Search, StoppingRule | None]:
    """Configuration, definition (with the objective's hyperparameter), search and rule of a request.

    Raises ServiceError.
    """
    config = parameters[_CONFIG]
    for required, holder, where in (
        (_DEFINITION, parameters, "input"),
        ("HyperParameterTuningJobObjective", config, _CONFIG),
        ("ParameterRanges", config, _CONFIG),
    ):
        if required not in holder:
            raise validation_error(f"{required} is required in {where}")
    definition, objective = dict(parameters[_DEFINITION]), config["HyperParameterTuningJobObjective"]
    metrics = [metric["Name"] for metric in definition["AlgorithmSpecification"].get("MetricDefinitions", [])]
    if objective["MetricName"] not in metrics:
        raise validation_error(
            f"The objective metric {objective['MetricName']!r} is not among the MetricDefinitions: {metrics}"
        )
    limits, static = config["ResourceLimits"], definition.get("StaticHyperParameters", {})
    try:
        search = Search(
            config["Strategy"],
            config["ParameterRanges"],
            objective["Type"],
            limits.get("MaxNumberOfTrainingJobs"),
            config.get("RandomSeed"),
            resources(config, static) if config["Strategy"] == "Hyperband" else None,
        )
        rule = rule_of(config, static, search)
    except RangeError as error:
        raise validation_error(str(error)) from error
    both = sorted(static.keys() & search.names)
    if both:
        raise validation_error(f"Hyperparameters are either static or have a range; these are both: {both}")
    definition["StaticHyperParameters"] = {**static, OBJECTIVE_HYPERPARAMETER: objective["MetricName"]}
    return config, definition, search, rule


def _enter(record: dict[str, Any], status: str, reason: str | None) -> None:
    now = datetime.now(UTC)
    record.update(HyperParameterTuningJobStatus=status, LastModifiedTime=now)
    if status in ENDED:
        record["HyperParameterTuningEndTime"] = now
        seconds = int((now - record["CreationTime"]).total_seconds())
        record["ConsumedResources"] = {"RuntimeInSeconds": seconds}
    if reason is not None:
        record["FailureReason"] = reason


def _counters(trials: list[dict[str, Any]]) -> dict[str, Any]:
    statuses = Counter(trial["TrainingJobStatus"] for trial in trials)
    objectives = Counter(trial["ObjectiveStatus"] for trial in trials)
    return {
        "TrainingJobStatusCounters": {
            "Completed": statuses["Completed"],
            "InProgress": statuses["InProgress"] + statuses["Stopping"],
            "RetryableError": 0,
            "NonRetryableError": statuses["Failed"],
            "Stopped": statuses["Stopped"],
        },
        "ObjectiveStatusCounters": {
            "Succeeded": objectives["Succeeded"],
            "Pending": objectives["Pending"],
            "Failed": objectives["Failed"],
        },
    }
