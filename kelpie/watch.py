"""Shows runs while they go on: a live tree of states, trials and epochs on a terminal, elsewhere a line an event."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text
from rich.tree import Tree

from kelpie.execution import Trial
from kelpie.graph import Node
from kelpie.progress import TUNING_STATE, Epoch, Follower, Progress, is_final_training
from kelpie.stack import AWS_ERRORS, Stack, passes, what_is_wrong

PATIENCE_SECONDS = 120.0
"""With an account: a laptop that wakes, or changes its network, finds its way by then."""
MOST_TRIALS = 6
MOST_EPOCHS = 4
MOST_BEFORE = 5
MOST_AHEAD = 3
TRAINING_STATE = "TrainModel"
STYLES = {"done": "green", "now": "bold cyan", "failed": "bold red", "ahead": "dim"}


def follow(stack: Stack, arns: Sequence[str], console: Console) -> list[Progress]:
    """Show the executions until all have ended, and return what they came to, in the given order.

    KeyboardInterrupt passes through: the executions go on. So do errors of AWS's clients: at once what will not pass,
    and what a local cloud does not answer; the rest after PATIENCE_SECONDS.
    """
    followers = [Follower(stack, arn) for arn in arns]
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:

            def draw_trees(readings: list[Progress]) -> None:
                live.update(Group(*map(tree, readings)), refresh=True)

            return _until_over(stack, followers, draw_trees, console)
    news = [News(arn.rpartition(":")[2] if len(arns) > 1 else "") for arn in arns]

    def print_lines(readings: list[Progress]) -> None:
        for one, reading in zip(news, readings, strict=True):
            for line in one.lines(reading):
                console.print(line, soft_wrap=True)

    return _until_over(stack, followers, print_lines, console)


def _until_over(
    stack: Stack, followers: list[Follower], show: Callable[[list[Progress]], None], console: Console
) -> list[Progress]:
    trouble_since: float | None = None
    while True:
        try:
            readings = [follower.read() for follower in followers]
        except AWS_ERRORS as error:
            if stack.is_local or not passes(error):
                raise
            if trouble_since is None:
                trouble_since = time.monotonic()
                console.print(f"{what_is_wrong(error)}; it is asked again", soft_wrap=True)
            elif time.monotonic() - trouble_since > PATIENCE_SECONDS:
                raise
        else:
            trouble_since = None
            show(readings)
            if all(reading.over for reading in readings):
                return readings
        time.sleep(stack.poll_seconds)


class News:
    """Says each piece of news once, as lines of text."""

    def __init__(self, prefix: str = ""):
        self._prefix = f"{prefix}  " if prefix else ""
        self._entered: set[str] = set()
        self._left: set[str] = set()
        self._trials: set[str] = set()
        self._epochs: dict[str, int] = {}
        self._again: set[str] = set()

    def lines(self, progress: Progress) -> list[str]:
        found = [
            *self._epoch_lines(progress),
            *self._trial_lines(progress),
            *self._state_lines(progress),
            *self._again_lines(progress),
        ]
        return [f"{self._prefix}{line}" for line in found]

    def _state_lines(self, progress: Progress) -> list[str]:
        """A state that is visited again and again, such as one that polls, is told of the first time only."""
        lines = []
        for visit in progress.visits:
            if visit.name not in self._entered and visit.left is None:
                lines.append(f"{visit.entered.astimezone():%H:%M:%S}  {visit.name} ...")
            if visit.name not in self._left and visit.left is not None:
                seconds = (visit.left - visit.entered).total_seconds()
                failed = "  failed" if visit.failed else ""
                lines.append(f"{visit.left.astimezone():%H:%M:%S}  {visit.name}  {seconds:.1f} s{failed}")
                self._left.add(visit.name)
            self._entered.add(visit.name)
        return lines

    def _again_lines(self, progress: Progress) -> list[str]:
        lines = [f"          {reason}" for job, reason in progress.again.items() if job not in self._again]
        self._again.update(progress.again)
        return lines

    def _trial_lines(self, progress: Progress) -> list[str]:
        lines = []
        for number, trial in enumerate(progress.trials, start=1):
            if trial.ended and trial.name not in self._trials:
                self._trials.add(trial.name)
                lines.append(f"          {describe_trial(number, trial)}")
        return lines

    def _epoch_lines(self, progress: Progress) -> list[str]:
        lines = []
        for job, epochs in progress.epochs.items():
            if is_final_training(job, progress.run):
                lines += [f"          {epoch.line}" for epoch in epochs[self._epochs.get(job, 0) :]]
            self._epochs[job] = len(epochs)
        return lines


def tree(progress: Progress) -> Tree:
    """Return the run as it stands: every state of its path, below them the trials and the last epochs."""
    name = progress.described["name"]
    root = Tree(Text.assemble((name, "bold"), f"  {progress.status}  {duration(progress.seconds)}"), guide_style="dim")
    for node in progress.path if progress.over else _around_now(progress.path):
        if isinstance(node, int):
            root.add(Text(f"{node} more", style="dim"))
            continue
        branch = root.add(_state(node))
        if node.name == TUNING_STATE:
            _add_trials(branch, progress)
        if node.name == TRAINING_STATE:
            for job in sorted(job for job in progress.epochs if is_final_training(job, progress.run)):
                for epoch in progress.epochs[job][-MOST_EPOCHS:]:
                    branch.add(Text(epoch.line, overflow="ellipsis", no_wrap=True))
            for reason in progress.again.values():
                branch.add(Text(reason, style="yellow"))
            for finding in progress.findings:
                if finding["status"] == "IssuesFound" and finding["job"] not in progress.again:
                    branch.add(Text(f"{finding['rule']}: {finding['message']}", style="yellow"))
    return root


def _around_now(path: list[Node]) -> list[Node | int]:
    """What fits on a screen: the states just before and after the present one, and how many each side has beyond."""
    entered = sum(node.standing != "ahead" for node in path)
    first, last = max(0, entered - MOST_BEFORE), min(len(path), entered + MOST_AHEAD)
    before: list[Node | int] = [first] if first else []
    after: list[Node | int] = [len(path) - last] if last < len(path) else []
    return [*before, *path[first:last], *after]


def _state(node: Node) -> Text:
    text = Text(node.name, style=STYLES[node.standing])
    if node.seconds is not None:
        text.append(f"  {duration(node.seconds)}", style="default")
    if node.standing in ("now", "failed"):
        text.append("  failed" if node.standing == "failed" else "  ...")
    return text


def _add_trials(branch: Tree, progress: Progress) -> None:
    """The running trials and the best of the ended; how many there are in all is said in a line."""
    ended = [trial for trial in progress.trials if trial.ended]
    best = sorted(ended, key=lambda trial: -1.0 if trial.objective is None else trial.objective, reverse=True)
    numbers = {trial.name: number for number, trial in enumerate(progress.trials, start=1)}
    if progress.trials:
        branch.add(f"{len(ended)} of {len(progress.trials)} trials ended" + ("; the best:" if ended else ""))
    for trial in best[:MOST_TRIALS]:
        branch.add(Text(describe_trial(numbers[trial.name], trial), overflow="ellipsis", no_wrap=True))
    for trial in progress.trials:
        if not trial.ended:
            branch.add(Text(describe_trial(numbers[trial.name], trial) + _at(progress.epochs.get(trial.name)), "cyan"))


def _at(epochs: list[Epoch] | None) -> str:
    return f"  epoch {epochs[-1].number}/{epochs[-1].of}" if epochs else ""


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


def duration(seconds: float) -> str:
    """`8.4 s`, `3:07 min` or `2:05:09 h`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d} h"
