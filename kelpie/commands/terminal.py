"""What every command shares: options, where its progress and its result go, and how it fails."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from typing import Annotated, Any, NoReturn, TextIO, cast

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from kelpie import local
from kelpie.stack import Stack, deployed

INTERRUPTED = 130
WIDTH_OFF_TERMINAL = 10_000
AS_IT_IS: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
"""Names of files and classes, causes and log lines are no markup, in lines and in tables' cells."""

StackName = Annotated[
    str | None,
    typer.Option(
        "--stack",
        metavar="NAME",
        envvar="KELPIE_STACK",
        help="A stack that ordinary AWS credentials reach. Default: the local cloud's.",
    ),
]
Port = Annotated[
    int,
    typer.Option(min=1, max=65535, metavar="PORT", envvar="KELPIE_PORT", help="Port of the local cloud on 127.0.0.1."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")]


def connect(stack_name: str | None) -> Stack:
    return deployed(stack_name) if stack_name else local.connect()


@contextlib.contextmanager
def count_bar(total: int, what: str) -> Iterator[Callable[[], None]]:
    """Show a bar of things done, on a terminal."""
    with _bars(TextColumn(what), BarColumn(), MofNCompleteColumn()) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


@contextlib.contextmanager
def bytes_bars(what: str, total: int) -> Iterator[Callable[[str, int], None]]:
    """Show two bars of bytes, on a terminal: read for the digest, and uploaded."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with _bars(*columns) as progress:
        tasks = {
            "read": progress.add_task(f"reading {what}", total=total),
            "upload": progress.add_task(f"uploading {what}", total=total),
        }
        yield lambda phase, count: progress.advance(tasks[phase], count)


def _bars(*columns: ProgressColumn) -> Progress:
    console = progress_console()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)  # else: an empty line


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def progress_console() -> Console:
    """Progress goes to stderr, so that stdout has the result alone."""
    return Console(stderr=True, **AS_IT_IS)


def result_console() -> Console:
    """Off a terminal nothing is cut to fit a width that nobody sees, and no cell is filled up at a line's end."""
    if sys.stdout.isatty():
        return Console(**AS_IT_IS)
    return Console(file=cast("TextIO", _WithoutTrailingBlanks(sys.stdout)), width=WIDTH_OFF_TERMINAL, **AS_IT_IS)


class _WithoutTrailingBlanks(io.TextIOBase):
    """Writes whole lines, as a console prints them, without the blanks at their ends."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(re.sub(r" +$", "", text, flags=re.MULTILINE))

    def flush(self) -> None:
        self._stream.flush()


def print_json(document: Any) -> None:
    print(json.dumps(document, indent=2))


def fail(message: str, exit_code: int) -> NoReturn:
    print(f"kelpie: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(exit_code)
