"""Hyperparameter tuning jobs: training jobs, some at a time, whose hyperparameters a search strategy chooses.

What a tuning job's description says of its trials is read from their own records; its own record lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from localcloud.sagemaker.account import Account
from localcloud.sagemaker.errors import resource_in_use, resource_not_found, validation_error
from localcloud.sagemaker.listing import list_page
from localcloud.sagemaker.store import RecordExists
from localcloud.sagemaker.training_jobs import TrainingJobs
from localcloud.sagemaker.training_records import ENDED
from localcloud.sagemaker.tuning_records import (
    KIND,
    best,
    completed_by_criteria,
    counters,
    enter,
    not_improving,
    state_change_detail,
    summary,
)
from localcloud.sagemaker.tuning_requests import CONFIG, DEFINITION, SUPPORT, check_request, training_job
from localcloud.sagemaker.tuning_run import TuningRun
from localcloud.sagemaker.validation import refuse_unsupported, validate
from localcloud.sagemaker.warm_start import check_parents, is_identical, parent_names


class TuningJobs:
    def __init__(self, account: Account, training_jobs: TrainingJobs):
        self.account = account
        self.training_jobs = training_jobs
        self._store = account.store
        self._runs: dict[str, TuningRun] = {}
        self._fail_interrupted()

    def create_hyper_parameter_tuning_job(self, parameters: dict[str, Any]) -> dict[str, Any]:
        refuse_unsupported("CreateHyperParameterTuningJob", parameters, SUPPORT)
        name = parameters["HyperParameterTuningJobName"]
        config, definition, search, rule = check_request(parameters)
        warm_start = parameters.get("WarmStartConfig", {})
        check_parents(warm_start, config, definition, self.describe_hyper_parameter_tuning_job)
        for trial in self._parents_trials(warm_start):
            if trial["Finished"] and "FinalObjectiveMetricValue" in trial:
                search.learn(trial["HyperParameters"], trial["FinalObjectiveMetricValue"])
        arn = self.account.arn(f"hyper-parameter-tuning-job/{name}")
        tags = parameters.get("Tags", [])
        self.training_jobs.check(validate("CreateTrainingJob", training_job(definition, f"{name}-001", {}, tags)))
        now = datetime.now(UTC)
        record = {
            "HyperParameterTuningJobName": name,
            "HyperParameterTuningJobArn": arn,
            CONFIG: config,
            DEFINITION: definition,
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
        self.account.tags.register(arn, tags)
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
            | counters(trials)
            | {
                "BestTrainingJob": best(record, trials),
                "OverallBestTrainingJob": best(record, overall),
                "TuningJobCompletionDetails": {
                    "NumberOfTrainingJobsObjectiveNotImproving": not_improving(record[CONFIG], trials)
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
            record.update(counters(self.trials(record)))
            record["Strategy"] = record[CONFIG]["Strategy"]
            record["ResourceLimits"] = record[CONFIG]["ResourceLimits"]
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
        describe = self.training_jobs.describe_training_job
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
                enter(record, status, reason)

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
        kind, arn = "SageMaker HyperParameter Tuning Job State Change", record["HyperParameterTuningJobArn"]
        self.account.announce(kind, arn, lambda tags: state_change_detail(record, tags))

    def _fail_interrupted(self) -> None:
        for record in self._store.list(KIND):
            if record["HyperParameterTuningJobStatus"] not in ENDED:
                reason = "InternalServerError: the local cloud ended while this tuning job was running"
                name = record["HyperParameterTuningJobName"]
                self._store.update(KIND, name, lambda record: enter(record, "Failed", reason))  # noqa: B023
