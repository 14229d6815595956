"""findings.json: what rules came to, all in one form, and the curves that they looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from documents import write_document
from job import job_name

Finding = dict[str, Any]
Value = float | str | None
DOCUMENT = "findings.json"


def make_finding(
    rule: str,
    status: str,
    message: str,
    *,
    step: int | None = None,
    tensor: str | None = None,
    values: Mapping[str, Value] | None = None,
    parameters: Mapping[str, float | str | bool] | None = None,
) -> Finding:
    """Return what a rule came to; a value that is NaN or infinite becomes None, as JSON has neither."""
    return {
        "rule": rule,
        "source": "rules",
        "status": status,
        "step": step,
        "tensor": tensor,
        "values": {name: _finite(value) for name, value in (values or {}).items()},
        "parameters": dict(parameters or {}),
        "message": message,
    }


def of_hooks(trouble: str | None, tensors: int) -> Finding:
    """Return the finding on the hooks themselves."""
    status = "Error" if trouble else "NoIssuesFound"
    return make_finding("Hooks", status, trouble or f"The hooks wrote {tensors} tensors.", values={"tensors": tensors})


def line(found: Finding) -> str:
    """Return a finding as a job's log tells it."""
    return f"debugger {found['rule']}: {found['status']}: {found['message']}"


def empty_document(script: str) -> dict[str, Any]:
    """Return findings.json of a job, or of a script by hand, before anything was found."""
    return {
        "version": 1,
        "job": job_name(script),
        "steps": 0,
        "tensors_saved": 0,
        "tensors": None,
        "stopped": None,
        "findings": [],
        "curves": [],
        "gradient_norms": {"steps": [], "layers": []},
    }


def write_findings(document: dict[str, Any], folders: Sequence[Path]) -> None:
    """Write findings.json to each folder."""
    for folder in folders:
        write_document(folder / DOCUMENT, document, "findings")


def _finite(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value
