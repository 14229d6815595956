"""One thing that was looked at, what was found, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

Verdict = Literal["ok", "warning", "missing", "unknown"]
STYLES = {"ok": "green", "warning": "yellow", "missing": "bold red", "unknown": "yellow"}


@dataclass(frozen=True)
class Check:
    name: str
    verdict: Verdict
    """missing: Kelpie does not work without it; warning: it may not; unknown: it could not be asked."""
    found: str
    remedy: str | None = None


def worst(checks: Sequence[Check]) -> str:
    verdicts = {check.verdict for check in checks}
    return next(
        verdict for verdict in ("missing", "unknown", "warning", "ok") if verdict in verdicts or verdict == "ok"
    )


def show(checks: Sequence[Check], console: Console) -> None:
    table = Table("", "", "", box=None, pad_edge=False, show_header=False)
    for check in checks:
        found = Text(check.found)
        if check.remedy:
            found.append(f"\n{check.remedy}", style="cyan")
        table.add_row(Text(check.verdict, style=STYLES[check.verdict]), check.name, found)
    console.print(table)
