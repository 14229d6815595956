"""The debugger around a training: hooks and rules while it runs, findings.json whatever happens.

Trouble in the hooks never stops a training and is never silent: it becomes a finding `Hooks` with status Error.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from batches import Batches
from curves import Curves
from engine import TrainingDiverged, TrainingDoomed
from findings import Finding, empty_document, line, make_finding, of_hooks, write_findings
from job import debug_hook_configuration, fail_at_once
from observer import NoObserver
from recipe import Phase
from torch import nn

if TYPE_CHECKING:
    from hooks import Hooks
    from rules.review import Review
    from rules.stalled import StalledTrainingRule

WATCH_SECONDS = 30


class TrainingHopeless(TrainingDoomed):
    """A rule that was asked to stop the training found an issue that nothing that follows could take back."""


def start_debugging(
    enabled: bool,
    folders: Sequence[Path],
    save_interval_steps: int,
    stopping: Collection[str] = (),
    parameters: Mapping[str, Mapping[str, float | bool]] = MappingProxyType({}),
    before_exit: Callable[[], None] = lambda: None,
) -> Debugging | NoDebugging:
    """Return what watches a training and judges it. findings.json goes to each folder; tensors go to the last, unless
    debughookconfig.json says where else.

    stopping: rules for whose issues a training is stopped. parameters: of rules, instead of their defaults.
    before_exit: what else is to be done where that is by ending the process, from a thread, as the training hangs.
    No folders: nothing is watched and nothing written, as in all processes of a distributed training but the first;
    their weights are the same.
    """
    if not enabled or not folders:
        return NoDebugging(folders)
    try:
        from hooks import Hooks  # smdebug imports pandas, and fails on its own terms
        from rules.review import Review

        hooks = Hooks(folders[-1], save_interval_steps, debug_hook_configuration())
        return Debugging(folders, hooks, Review(hooks.trial, parameters), None, stopping, before_exit)
    except Exception as error:  # noqa: BLE001 - whatever smdebug raises is the finding
        return Debugging(
            folders, None, None, f"the hooks could not be set up: {type(error).__name__}: {error}", (), before_exit
        )


class NoDebugging(NoObserver):
    """No hooks, no rules, and a findings.json that says so."""

    def __init__(self, folders: Sequence[Path]):
        self._folders = folders

    def write_findings(self, ended: BaseException | None = None) -> None:
        """Write findings.json without findings, or with why the training ended early."""
        document = _document(ended)
        if isinstance(ended, TrainingDiverged):
            document["findings"] = [_of_divergence(ended)]
        write_findings(document, self._folders)


class Debugging(NoObserver):
    """Hooks that run and rules that judge, or hooks that could not be set up: `trouble` says why."""

    def __init__(
        self,
        folders: Sequence[Path],
        hooks: Hooks | None,
        review: Review | None,
        trouble: str | None,
        stopping: Collection[str],
        before_exit: Callable[[], None],
    ):
        self._folders = folders
        self._hooks, self._review = hooks, review
        self._trouble = trouble
        self._stopping = frozenset(stopping)
        self._before_exit = before_exit
        self._curves = Curves()
        self._stepped = False
        self._over = threading.Event()
        if review:
            threading.Thread(target=self._watch, args=(review.stalled,), daemon=True).start()

    @property
    def seconds(self) -> float:
        """How long hooks and rules have taken so far."""
        return self._hooks.seconds if self._hooks else 0.0

    def start(
        self,
        network: nn.Module,
        criterion: nn.Module,
        batches: Batches,
        phase: Phase,  # noqa: ARG002 - the profiler's
        steps: range,
        done: int,
    ) -> None:
        """Hook a network and its loss, until another is started."""
        if self._hooks:
            self._hooks.start(network, criterion, steps, done, batches.valid_images)

    def mode(self, training: bool) -> None:
        """Tell the hooks whether the next forward passes train or validate."""
        if self._hooks:
            self._hooks.mode(training)

    def before_update(self) -> None:
        """Save gradients, and what weights are before an update."""
        if self._hooks:
            self._hooks.before_update()

    def after_update(self) -> None:
        """Save updates."""
        if self._hooks:
            self._hooks.after_update()

    def step(self, loss: float, plain_loss: float, accuracy: float, learning_rate: float) -> None:
        """Hear of the end of a step. Raises TrainingHopeless."""
        self._stepped = True
        if self._hooks:
            self._judge(self._hooks.step(loss, plain_loss, accuracy, learning_rate))

    def evaluated(self, loss: float, accuracy: float) -> None:
        """Hear of an evaluation's end. Raises TrainingHopeless."""
        if self._hooks:
            self._judge(self._hooks.evaluated(loss, accuracy))

    def write_findings(self, ended: BaseException | None = None) -> None:
        """Close the hooks, let the rules conclude, and write findings.json. ended: what ended the training early."""
        started = time.monotonic()
        self._over.set()
        if self._hooks:
            self._hooks.close()
        document = self._concluded(ended)
        write_findings(document, self._folders)
        for finding in document["findings"]:
            print(line(finding), flush=True)
        spent = f"{self.seconds:.1f} s in hooks and rules, " if self._hooks else ""
        print(
            f"debugger: {document['tensors_saved']} tensors of {document['steps']} steps; {spent}"
            f"{time.monotonic() - started:.1f} s at the end",
            flush=True,
        )

    def _judge(self, saved: int | None) -> None:
        if self._hooks is None or self._review is None:
            return
        self._review.stalled.passed(self._hooks.steps - 1)
        if saved is None:
            return
        started = time.perf_counter()
        self._curves.look(self._hooks.trial.current)
        found = self._review.invoke(saved)
        self._hooks.seconds += time.perf_counter() - started
        for finding in found:
            print(line(finding), flush=True)
            if finding["rule"] in self._stopping:
                raise TrainingHopeless(finding["rule"], finding["step"] or 0, finding["message"])

    def _concluded(self, ended: BaseException | None) -> dict[str, Any]:
        document = _document(ended)
        if self._hooks:
            document["steps"], document["tensors"] = self._hooks.steps, self._hooks.tensors
            document["tensors_saved"] = len(self._hooks.trial.names)
            document["curves"], document["gradient_norms"] = self._curves.curves(), self._curves.gradient_norms()
        findings = self._review.conclude() if self._review else []
        if isinstance(ended, TrainingDiverged):  # at a step, perhaps, that the hooks did not save
            of_rule = next((one for one in findings if one["rule"] == "ExplodingTensor"), None)
            if of_rule is None or of_rule["status"] != "IssuesFound":
                findings = [one for one in findings if one is not of_rule] + [_of_divergence(ended)]
        if not self._stepped:  # what saw nothing has nothing to tell
            findings = [one for one in findings if one["status"] == "IssuesFound"]
        document["findings"] = [self._of_hooks(document["tensors_saved"], ended), *findings]
        return document

    def _of_hooks(self, tensors: int, ended: BaseException | None) -> Finding:
        trouble = self._hooks.trouble if self._hooks else self._trouble
        if trouble or tensors:
            return of_hooks(trouble, tensors)
        if self._stepped:
            return of_hooks("the hooks wrote no tensor", 0)
        reason = f": {type(ended).__name__}: {ended}" if ended else "."
        return make_finding("Hooks", "NoIssuesFound", f"The training took no step{reason}")

    def _watch(self, rule: StalledTrainingRule) -> None:
        """Say that the training stalls while it does; end the process if it is to be stopped for it."""
        while not self._over.wait(WATCH_SECONDS):
            finding = rule.watch()
            if finding:
                print(line(finding), flush=True)
                stops = finding["rule"] in self._stopping
                stalled = TrainingHopeless(finding["rule"], finding["step"] or 0, finding["message"])
                write_findings(self._concluded(stalled if stops else None), self._folders)
                if stops:
                    self._before_exit()
                    fail_at_once(stalled)
                return


def _document(ended: BaseException | None) -> dict[str, Any]:
    document = empty_document("train.py")
    if isinstance(ended, TrainingDoomed):
        document["stopped"] = {"rule": ended.rule, "step": ended.step, "message": str(ended)}
    return document


def _of_divergence(diverged: TrainingDiverged) -> Finding:
    return make_finding(
        diverged.rule, "IssuesFound", str(diverged), step=diverged.step, tensor="losses", values={"value": None}
    )
