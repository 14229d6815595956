"""The debugger around a training: hooks while it runs, rules after it, findings.json whatever happens.

Trouble in the hooks never stops a training and is never silent: it becomes a finding `Hooks` with status Error.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from documents import write_document
from engine import TrainingDiverged
from job import debug_hook_configuration, job_name
from torch import nn

if TYPE_CHECKING:
    from debugger import Hooks

Finding = dict[str, Any]


def start_debugging(
    enabled: bool, network: nn.Module, criterion: nn.Module, output: Path, save_interval_steps: int
) -> Debugging:
    """Hook a network and its loss, if `enabled`; tensors go below `output`, or where debughookconfig.json says."""
    if not enabled:
        return Debugging(None, None)
    try:
        from debugger import Hooks  # smdebug imports pandas, and fails on its own terms

        return Debugging(Hooks(network, criterion, output, save_interval_steps, debug_hook_configuration()), None)
    except Exception as error:  # noqa: BLE001 - whatever smdebug raises is the finding
        return Debugging(None, f"the hooks could not be set up: {type(error).__name__}: {error}")


class Debugging:
    """Hooks that run, hooks that could not be set up (`trouble` says why), or none (neither)."""

    def __init__(self, hooks: Hooks | None, trouble: str | None):
        self._hooks = hooks
        self._trouble = trouble

    def mode(self, training: bool) -> None:
        """Tell the hooks whether the next forward passes train or validate."""
        if self._hooks:
            self._hooks.mode(training)

    def write_findings(self, folders: Sequence[Path], diverged: TrainingDiverged | None = None) -> None:
        """Close the hooks, read back what they wrote, let the rules judge it, write findings.json to each folder."""
        started = time.monotonic()
        document = self._review()
        if diverged:
            _add_divergence(document["findings"], diverged)
        for folder in folders:
            write_document(folder / "findings.json", document, "findings")
        for finding in document["findings"]:
            print(f"debugger {finding['rule']}: {finding['status']}: {finding['message']}", flush=True)
        print(
            f"debugger: {document['tensors_saved']} tensors of {document['steps']} steps reviewed in "
            f"{time.monotonic() - started:.1f} s",
            flush=True,
        )

    def _review(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "version": 1,
            "job": job_name("train.py"),
            "steps": 0,
            "tensors_saved": 0,
            "tensors": None,
            "findings": [],
        }
        if self._hooks:
            document["steps"], document["tensors"] = self._hooks.steps, self._hooks.tensors
            try:
                self._trouble = self._hooks.close()
                document["tensors_saved"], document["findings"] = self._hooks.review()
                if not document["tensors_saved"] and not self._trouble:
                    self._trouble = "the hooks wrote no tensor"
            except Exception as error:  # noqa: BLE001 - whatever smdebug raises is the finding
                self._trouble = self._trouble or f"what the hooks wrote cannot be read: {type(error).__name__}: {error}"
        if self._trouble:
            document["findings"].insert(0, _hooks_finding("Error", self._trouble, document["tensors_saved"]))
        elif self._hooks:
            message = f"The hooks wrote {document['tensors_saved']} tensors."
            document["findings"].insert(0, _hooks_finding("NoIssuesFound", message, document["tensors_saved"]))
        return document


def _hooks_finding(status: str, message: str, tensors: int) -> Finding:
    return {
        "rule": "Hooks",
        "status": status,
        "step": None,
        "tensor": None,
        "values": {"tensors": tensors},
        "message": message,
    }


def _add_divergence(findings: list[Finding], diverged: TrainingDiverged) -> None:
    """Make sure that a loss that exploded is a finding, even at a step that the hooks did not save."""
    if any(finding["rule"] == "ExplodingTensor" and finding["status"] == "IssuesFound" for finding in findings):
        return
    findings[:] = [finding for finding in findings if finding["rule"] != "ExplodingTensor"]
    findings.append(
        {
            "rule": "ExplodingTensor",
            "status": "IssuesFound",
            "step": diverged.step,
            "tensor": "CrossEntropyLoss_output_0",
            "values": {"value": None},
            "message": str(diverged),
        }
    )
