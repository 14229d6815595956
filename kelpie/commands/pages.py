"""`kelpie ui` and `kelpie report`: what opens in a browser."""

from __future__ import annotations

import contextlib
import os
import tempfile
import webbrowser
from pathlib import Path
from typing import IO, Annotated

import typer

from kelpie import execution, local, reports
from kelpie.commands.completion import execution_names
from kelpie.commands.terminal import Json, StackName, connect, print_json, progress_console

Browser = Annotated[bool, typer.Option(help="Open the page in the browser.")]


def ui(
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="Port on 127.0.0.1. Default: any that is free.")
    ] = 0,
    browser: Browser = True,
    stack_name: StackName = None,
) -> None:
    """Serve a page for runs and the inbox, until Ctrl-C. It shows runs, starts them and takes pictures to classify."""
    from kelpie.ui.server import serve  # charts and a server that no other command needs

    stack = connect(stack_name)
    with tempfile.NamedTemporaryFile("w", prefix="kelpie-ui-", suffix=".html") as door:

        def tell(address: str) -> None:
            progress_console().print(f"Open {address}\nCtrl-C ends it.", soft_wrap=True)
            if browser:
                _open(address, door)

        with contextlib.suppress(KeyboardInterrupt):
            serve(stack, None if stack_name else str(local.cloud().home), port, tell)


def _open(address: str, door: IO[str]) -> None:
    """Open the address by way of a file that only this user can read: a program's arguments, which would hold the key,
    are there for every user of the machine to see.
    """
    door.write(f'<!doctype html><meta http-equiv="refresh" content="0; url={address}"><title>Kelpie</title>\n')
    door.flush()
    webbrowser.open(Path(door.name).as_uri())


def report(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="EXECUTION",
            help="Name or ARN of an execution. Default: the newest that has ended.",
            autocompletion=execution_names,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to copy it to. Default: the user's cache.")
    ] = None,
    browser: Browser = True,
    stack_name: StackName = None,
    as_json: Json = False,
) -> None:
    """Fetch a run's report and open it. A run that failed has one too."""
    stack = connect(stack_name)
    arn = execution.find(stack, name) if name else reports.newest(stack)
    page = reports.fetch(stack, arn, output or reports.cache_folder(os.environ, arn.rpartition(":")[2]))
    if as_json:
        print_json({"execution_arn": arn, "report": str(page)})
    else:
        print(page)
    if browser and not as_json:
        webbrowser.open(page.resolve().as_uri())
