"""`kelpie`: bring a local cloud up, run a data set through the stack, classify images, look at it all, take it down.

Exit codes: 0 done; 1 the run failed or has left no report, an image got no label, a rule found an issue, an endpoint
answers nothing, or the doctor misses something; 2 an option, a setting, a file or a data set cannot be used, and
nothing was started; 3 no cloud is up, it is up already, a port is in use, or it does not answer or refuses; 130
interrupted by Ctrl-C.
"""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer

from kelpie.commands import checks, cloud, images, pages, reviews, runs
from kelpie.commands.terminal import fail
from kelpie.errors import CloudUnavailable, InvalidInput, KelpieError
from kelpie.stack import AWS_ERRORS, what_is_wrong

application = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="From a folder of labelled images to a classified inbox.",
    epilog="Exit codes: 0 done; 1 the run failed or has left no report, an image got no label, a rule found an issue, "
    "an endpoint answers nothing, or the doctor misses something; 2 wrong usage or input, nothing was started; 3 no "
    "cloud is up, it is up already, a port is in use, or it does not answer or refuses; 130 interrupted.",
)


def tell_version(asked: bool) -> None:
    """Say which version it is, if that is asked, and end."""
    if asked:
        typer.echo(f"kelpie {metadata.version('kelpie')}")
        raise typer.Exit


@application.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=tell_version, help="Say which version this is.")
    ] = False,
) -> None:
    """Take what comes before a command."""


application.command(name="up")(cloud.up)
application.command(name="env")(cloud.env)
application.command(name="run")(runs.run)
application.command(name="stop")(runs.stop)
application.command(name="classify")(images.classify)
application.command(name="bench-endpoint")(images.bench_endpoint)
application.command(name="inbox")(images.show_inbox)
application.command(name="status")(runs.show_status)
application.command(name="logs")(runs.logs)
application.command(name="ui")(pages.ui)
application.command(name="report")(pages.report)
application.command(name="debug")(reviews.debug)
application.command(name="doctor")(checks.doctor)
application.command(name="down")(cloud.down)


def main() -> None:
    """Run the command. What is wrong is said in one line on stderr, with what to do."""
    try:
        application()
    except KelpieError as error:
        fail(str(error), error.exit_code)
    except OSError as error:
        fail(f"{error.filename or 'this machine'}: {error.strerror or error}", InvalidInput.exit_code)
    except AWS_ERRORS as error:
        fail(f"{what_is_wrong(error)}: see `kelpie doctor`, of an account with --stack", CloudUnavailable.exit_code)
