"""Shows a run while it goes on: states as they are entered and left, trials as they end, epochs as they are logged."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from kelpie import execution
from kelpie.execution import EPOCH, JobLogs, LogLine, StateVisit, Trial
from kelpie.stack import Stack

POLL_SECONDS = 1.0
TUNING_STATE = "TuneHyperparameters"


def follow(stack: Stack, arn: str, console: Console) -> dict[str, Any]:
    """Show the execution until it has ended, and return it as DescribeExecution has it.

    KeyboardInterrupt passes through: the execution goes on.
    """
    with _footer(console) as footer:
        watch = _Watch(stack, arn, console)
        while True:
            described = stack.client("stepfunctions").describe_execution(executionArn=arn)
            footer(watch.show_news())
            if described["status"] not in ("RUNNING", "PENDING_REDRIVE"):
                return described
            time.sleep(POLL_SECONDS)


class _Watch:
    """What has been shown, so that each piece of news is shown once."""

    def __init__(self, stack: Stack, arn: str, console: Console):
        self._stack = stack
        self._arn = arn
        self._run = execution.run_id(arn)
        self._console = console
        self._entered: set[str] = set()
        self._left: set[str] = set()
        self._trials: dict[str, Trial] = {}
        self._logs: dict[str, JobLogs] = {}
        self._epochs: dict[str, str] = {}

    def show_news(self) -> str:
        """Print what is new, and return one line that says what goes on now."""
        visits = execution.state_visits(execution.history(self._stack, self._arn))
        self._show_epochs()
        if any(visit.name == TUNING_STATE for visit in visits) and TUNING_STATE not in self._left:
            self._show_trials()
        self._show_states(visits)
        return self._now(visits)

    def _show_states(self, visits: list[StateVisit]) -> None:
        """A state that is visited again and again, such as one that polls, is shown the first time only."""
        for visit in visits:
            if visit.name not in self._entered and visit.left is None:
                self._console.print(
                    f"{visit.entered.astimezone():%H:%M:%S}  {visit.name} ...", highlight=False, soft_wrap=True
                )
            if visit.name not in self._left and visit.left is not None:
                seconds = (visit.left - visit.entered).total_seconds()
                self._console.print(
                    f"{visit.left.astimezone():%H:%M:%S}  {visit.name}  {seconds:.1f} s", highlight=False
                )
                self._left.add(visit.name)
            self._entered.add(visit.name)

    def _show_trials(self) -> None:
        for number, trial in enumerate(execution.trials(self._stack, self._run), start=1):
            known = self._trials.get(trial.name)
            self._trials[trial.name] = trial
            if trial.ended and not (known and known.ended):
                self._console.print(f"          {describe_trial(number, trial)}", highlight=False, soft_wrap=True)

    def _show_epochs(self) -> None:
        """Read the logs of the jobs in progress, and once more those of the ones that have ended since."""
        running = execution.jobs_in_progress(self._stack, self._run)
        for job in running:
            self._logs.setdefault(job, JobLogs(self._stack, f"{job}/"))
        for job, logs in list(self._logs.items()):
            for line in logs.read():
                self._show_epoch(job, line)
            if job not in running:
                del self._logs[job]
                self._epochs.pop(job, None)

    def _show_epoch(self, job: str, line: LogLine) -> None:
        epoch = EPOCH.match(line.message)
        if not epoch:
            return
        self._epochs[job] = f"epoch {epoch['epoch']}/{epoch['epochs']}"
        if f"-{self._run}-train-" in job:
            self._console.print(f"          {line.message}", highlight=False, soft_wrap=True)

    def _now(self, visits: list[StateVisit]) -> str:
        names = [visit.name for visit in visits if visit.left is None]
        parts = [", ".join(names)]
        if TUNING_STATE in names and self._trials:
            ended = [trial for trial in self._trials.values() if trial.ended]
            scores = [trial.objective for trial in ended if trial.objective is not None]
            parts.append(f"{len(ended)} trials ended, {len(self._trials) - len(ended)} running")
            parts += [f"best {max(scores):.4f}"] if scores else []
        parts += sorted(set(self._epochs.values()))
        return " · ".join(part for part in parts if part)


def describe_trial(number: int, trial: Trial) -> str:
    """One line: `trial 3  0.9312  batch_size=64 eps=3.1e-09 ...  8.4 s`."""
    score = f"{trial.objective:.4f}" if trial.objective is not None else trial.status
    values = " ".join(f"{name}={short_number(value)}" for name, value in sorted(trial.hyperparameters.items()))
    return f"trial {number}  {score}  {values}" + (f"  {trial.seconds:.1f} s" if trial.seconds is not None else "")


def short_number(text: str) -> str:
    """Return a hyperparameter's value with three digits if it is a number: SageMaker's have seventeen."""
    try:
        return f"{float(text.strip(chr(34))):.3g}"
    except ValueError:
        return text


@contextlib.contextmanager
def _footer(console: Console) -> Iterator[Any]:
    """Yield a function that shows a line below what is printed; off a terminal it shows nothing."""
    if not console.is_terminal:
        yield lambda _line: None
        return
    with console.status("") as status:
        yield status.update
