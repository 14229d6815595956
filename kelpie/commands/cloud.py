"""`kelpie up`, `env` and `down`: the local cloud's life."""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
from collections.abc import Callable, Iterator

from rich.text import Text

from kelpie import local
from kelpie.commands.terminal import Json, Port, print_json, progress_console

RESOURCE_DONE = re.compile(r"^\w+_(IN_PROGRESS|COMPLETE|SKIPPED) ")


def up(
    port: Port = 4566,
    as_json: Json = False,
) -> None:
    """Start a local cloud and deploy the stack to it. It runs until `kelpie down`."""
    with deployment() as show:
        stack = local.up(port, show)
    environment = local.require_up().environment
    if as_json:
        print_json({"environment": environment, "stack": stack.name, "outputs": stack.outputs})
        return
    progress_console().print('The local cloud is up. Any AWS client reaches it with: eval "$(kelpie env)"')
    print_exports(environment)


def env(as_json: Json = False) -> None:
    """Print what leads any AWS client to the local cloud. Shells take the exports by eval."""
    environment = local.require_up().environment
    if as_json:
        print_json(environment)
    else:
        print_exports(environment)


def down() -> None:
    """Stop the local cloud and everything that it started. Its state is kept in .kelpie/ for the next `kelpie up`."""
    was_running = local.down()
    progress_console().print("The local cloud is down." if was_running else "No local cloud was up.")


@contextlib.contextmanager
def deployment() -> Iterator[Callable[[str], None]]:
    """Show the latest line below on a terminal; elsewhere what is packaged and what fails, a line each."""
    console = progress_console()
    if console.is_terminal:
        with console.status("starting") as spinner:
            yield lambda line: spinner.update(Text(line))
    else:
        yield lambda line: None if RESOURCE_DONE.match(line) else print(line, file=sys.stderr)


def print_exports(environment: dict[str, str]) -> None:
    for name, value in environment.items():
        print(f"export {name}={shlex.quote(value)}")
