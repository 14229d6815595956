"""One tuning job while it runs: it starts trials and tells the search of their ends."""

from __future__ import annotations

import contextlib
import logging
import math
import secrets
import threading
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from localcloud.sagemaker.early_stopping import StoppingRule
from localcloud.sagemaker.errors import ServiceError
from localcloud.sagemaker.host import CPUS
from localcloud.sagemaker.search import Search
from localcloud.sagemaker.training_records import ENDED
from localcloud.sagemaker.tuning_records import final_objective
from localcloud.sagemaker.tuning_requests import training_job

if TYPE_CHECKING:
    from localcloud.sagemaker.tuning_jobs import TuningJobs

logger = logging.getLogger(__name__)

MOST_ATTEMPTS = 5
"""A tuning job fails if so many of its training jobs have ended and none completed: AWS's rule, as it words it."""


class TuningRun:
    """One tuning job: it starts trials and tells the search of their ends."""

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
        self._training_jobs = jobs.training_jobs
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
            tuning_job_arn=self._jobs.account.arn(f"hyper-parameter-tuning-job/{self._name}"),
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
