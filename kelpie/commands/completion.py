"""What a shell may complete: names of executions and keys of settings. Nothing is said if nothing answers."""

from __future__ import annotations

import typer

from kelpie import execution, settings
from kelpie.commands.terminal import connect
from kelpie.errors import KelpieError
from kelpie.stack import AWS_ERRORS

MOST_NAMES = 20


def execution_names(context: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Return the newest executions' names with the status of each."""
    try:
        recent = execution.recent(connect(context.params.get("stack_name")), MOST_NAMES)
    except (KelpieError, *AWS_ERRORS):
        return []
    return [(one["name"], one["status"]) for one in recent if one["name"].startswith(incomplete)]


def setting_keys(incomplete: str) -> list[tuple[str, str]]:
    """Return the keys of settings, each ending in `=`, with what it is."""
    rules = settings.rules()
    return [(f"{key}=", rule["description"]) for key, rule in rules.items() if key.startswith(incomplete)]
