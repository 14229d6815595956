"""`kelpie`: bring a local cloud up, run a data set through the stack, classify images, look at it all, take it down.

Exit codes: 0 done; 1 the run failed or an image got no label; 2 an option, a setting, a file or a data set cannot be
used, and nothing was started; 3 no cloud is up, it is up already, or it does not answer; 130 interrupted by Ctrl-C.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import botocore.exceptions
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from kelpie import dataset as datasets
from kelpie import execution, inbox, letters, local, settings, status, summary, watch
from kelpie import logs as job_logs
from kelpie.errors import CloudUnavailable, InvalidInput, KelpieError, RunFailed
from kelpie.stack import Stack, deployed

INTERRUPTED = 130
WIDTH_OFF_TERMINAL = 400
RESOURCE_DONE = re.compile(r"^\w+_(IN_PROGRESS|COMPLETE) ")
NOT_UPLOADED_YET = "s3://not-uploaded-yet/"

application = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="From a folder of labelled images to a classified inbox.",
    epilog="Exit codes: 0 done; 1 the run failed or an image got no label; 2 wrong usage or input, nothing was "
    "started; 3 no cloud is up, it is up already, or it does not answer; 130 interrupted.",
)

StackName = Annotated[
    str | None,
    typer.Option(
        "--stack",
        metavar="NAME",
        envvar="KELPIE_STACK",
        help="A stack that ordinary AWS credentials reach. Default: the local cloud's.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else.")]


def main() -> None:
    """Run the command. What is wrong is said in one line on stderr, with what to do."""
    try:
        application()
    except KelpieError as error:
        _fail(str(error), error.exit_code)
    except botocore.exceptions.HTTPClientError as error:
        _fail(
            f"the cloud stopped answering ({error}): see `kelpie status`, or run `kelpie up`",
            CloudUnavailable.exit_code,
        )
    except botocore.exceptions.ClientError as error:
        _fail(f"the cloud refused: {error}", RunFailed.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)


@application.command()
def up(
    port: Annotated[
        int, typer.Option(min=1, max=65535, envvar="KELPIE_PORT", help="Port of the local cloud on 127.0.0.1.")
    ] = 4566,
    as_json: Json = False,
) -> None:
    """Start a local cloud, deploy the stack to it and leave it running."""
    with _deployment() as show:
        stack = local.up(port, show)
    environment = local.require_up().environment
    if as_json:
        _print_json({"environment": environment, "stack": stack.name, "outputs": stack.outputs})
        return
    _progress_console().print(
        'The local cloud is up. Any AWS client reaches it with: eval "$(kelpie env)"', highlight=False
    )
    _print_exports(environment)


@application.command()
def env(as_json: Json = False) -> None:
    """Print the environment variables with which any AWS client reaches the local cloud."""
    environment = local.require_up().environment
    if as_json:
        _print_json(environment)
    else:
        _print_exports(environment)


@application.command()
def run(
    dataset: Annotated[
        str | None, typer.Argument(help="Folder with train/, valid/ and test/, or an s3:// URI of one.")
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting of contracts/execution_input.schema.json; repeatable."
        ),
    ] = None,
    attach: Annotated[
        str | None, typer.Option(metavar="EXECUTION", help="Follow an execution that was started before.")
    ] = None,
    stack_name: StackName = None,
    as_json: Json = False,
) -> None:
    """Tune, train, evaluate and deploy a classifier, and follow it. Ctrl-C detaches: the run goes on."""
    if (dataset is None) == (attach is None):
        raise InvalidInput("kelpie run needs a data set, or --attach with an execution, and not both")
    stack, arn = _attach(attach, stack_name) if attach else _start(dataset or "", assignments or [], stack_name)
    console = _progress_console()
    try:
        described = watch.follow(stack, arn, console)
    except KeyboardInterrupt:
        name = arn.rpartition(":")[2] + (f" --stack {shlex.quote(stack_name)}" if stack_name else "")
        _fail(
            f"detached: the run goes on. Follow it: kelpie run --attach {name}. Stop it: kelpie stop {name}",
            INTERRUPTED,
        )
    except botocore.exceptions.HTTPClientError as error:
        raise CloudUnavailable(
            f"the cloud stopped answering while it was followed ({error}): run `kelpie up`, then `kelpie status`"
        ) from error
    document = summary.summarise(stack, described)
    if as_json:
        _print_json(document)
    else:
        summary.show(document, _result_console())
    if document["status"] != "SUCCEEDED":
        summary.show_failure(document, console)
        raise RunFailed(summary.failure(document))


@application.command()
def stop(
    name: Annotated[str, typer.Argument(metavar="EXECUTION", help="Name or ARN of an execution.")],
    stack_name: StackName = None,
) -> None:
    """Stop an execution, and with it its jobs. What is in service stays in service."""
    execution.stop(_connect(stack_name), name)


@application.command()
def classify(
    files: Annotated[list[str], typer.Argument(help="Images.")],
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds without a new result until the rest is given up.")
    ] = 120,
    stack_name: StackName = None,
    as_json: Json = False,
) -> None:
    """Drop images into the inbox and print what comes back. Exits with 1 unless every image is classified."""
    stack = _connect(stack_name)
    inbox.check(files)
    _require_endpoint(stack)
    with _count(len(files), "uploaded") as advance:
        dropped = inbox.drop(stack, files, advance)
    with _count(len(files), "classified") as advance:
        rows = inbox.collect(stack, dropped, timeout, advance)
    if as_json:
        _print_json(rows)
    else:
        _result_console().print(_answers(rows))
    without_label = [row for row in rows if row["status"] != "classified"]
    if without_label:
        raise RunFailed(f"{len(without_label)} of {len(rows)} images got no label")


@application.command(name="inbox")
def show_inbox(
    redrive: Annotated[bool, typer.Option("--redrive", help="Try once more what was given up.")] = False,
    stack_name: StackName = None,
    as_json: Json = False,
) -> None:
    """Show what waits in the inbox, what has been answered and how, and what was given up."""
    stack = _connect(stack_name)
    redriven = letters.redrive(stack) if redrive else 0
    if redrive:
        _progress_console().print(f"{redriven} messages are in the queue again.")
    document = letters.read(stack) | {"redriven": redriven}
    if as_json:
        _print_json(document)
    else:
        letters.show(document, _result_console())


@application.command(name="status")
def show_status(stack_name: StackName = None, as_json: Json = False) -> None:
    """Show what is up, what is in service and the latest executions."""
    document = status.read(_connect(stack_name), None if stack_name else str(local.cloud().home))
    if as_json:
        _print_json(document)
    else:
        status.show(document, _result_console())


@application.command()
def logs(
    name: Annotated[
        str | None,
        typer.Argument(help="A job, a function, an endpoint or an execution. Default: the newest execution's jobs."),
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Newest lines to show; 0 for all.")] = 200,
    stack_name: StackName = None,
    as_json: Json = False,
) -> None:
    """Print what jobs, functions and endpoints have logged."""
    found = job_logs.read(_connect(stack_name), name, lines)
    if as_json:
        _print_json(found)
        return
    for line in found:
        print(f"{line['time'][11:19]}  {line['source']}  {line['message']}")


@application.command()
def down() -> None:
    """Stop the local cloud and everything that it started. Its state is kept in .kelpie/ for the next `kelpie up`."""
    was_running = local.down()
    _progress_console().print("The local cloud is down." if was_running else "No local cloud was up.")


def _connect(stack_name: str | None) -> Stack:
    return deployed(stack_name) if stack_name else local.connect()


def _attach(name: str, stack_name: str | None) -> tuple[Stack, str]:
    stack = _connect(stack_name)
    return stack, execution.find(stack, name)


def _start(dataset: str, assignments: list[str], stack_name: str | None) -> tuple[Stack, str]:
    """Check everything that can be checked here, copy the data set if it is a folder, and start an execution."""
    is_uri = dataset.startswith("s3://")
    assignments, weights = settings.take_weights_file(assignments)
    settings.execution_input(assignments, dataset if is_uri else NOT_UPLOADED_YET)
    files = [] if is_uri else datasets.list_dataset(Path(dataset))
    stack = _connect(stack_name)
    if weights:
        uri = datasets.upload_weights(stack.client("s3"), stack.bucket, weights)
        assignments = [*assignments, f"model.weights={uri}"]
    uri = dataset if is_uri else _upload(stack, Path(dataset), files)
    arn = execution.start(stack, settings.execution_input(assignments, uri))
    _progress_console().print(
        f"Execution {arn.rpartition(':')[2]} on {uri}", highlight=False, markup=False, soft_wrap=True
    )
    return stack, arn


def _upload(stack: Stack, folder: Path, files: list[datasets.LocalFile]) -> str:
    total = sum(file.size for file in files)
    with _bytes(f"{folder.name}: {len(files)} files", total) as advance:
        upload = datasets.upload_dataset(stack.client("s3"), stack.bucket, folder, files, advance)
    _progress_console().print(
        f"{upload.uploaded} files copied to {upload.uri}, {upload.unchanged} were there",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return upload.uri


def _require_endpoint(stack: Stack) -> None:
    described = status.endpoint(stack)
    if described is None:
        raise CloudUnavailable(f"there is no endpoint {stack.endpoint_name} to ask: make one with `kelpie run`")
    if described["status"] not in ("InService", "Updating", "SystemUpdating", "RollingBack"):
        raise CloudUnavailable(f"the endpoint {stack.endpoint_name} is {described['status']}: wait for `kelpie run`")


def _answers(rows: list[dict[str, Any]]) -> Table:
    table = Table("File", "Label", "Probability", "Status", box=None, pad_edge=False)
    for row in rows:
        reason = f": {row['reason']['code']}: {row['reason']['message']}" if row["reason"] else ""
        probability = f"{row['probability']:.4f}" if row["probability"] is not None else "-"
        file = row["file"].encode("utf-8", "replace").decode()
        table.add_row(file, row["label"] or "-", probability, f"{row['status']}{reason}")
    return table


@contextlib.contextmanager
def _deployment() -> Iterator[Callable[[str], None]]:
    """Show the latest line below on a terminal; elsewhere what is packaged and what fails, a line each."""
    console = _progress_console()
    if console.is_terminal:
        with console.status("starting") as spinner:
            yield lambda line: spinner.update(escape(line))
    else:
        yield lambda line: None if RESOURCE_DONE.match(line) else print(line, file=sys.stderr)


@contextlib.contextmanager
def _count(total: int, what: str) -> Iterator[Callable[[], None]]:
    """Show a bar of things done."""
    with Progress(
        TextColumn(what), BarColumn(), MofNCompleteColumn(), console=_progress_console(), transient=True
    ) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


@contextlib.contextmanager
def _bytes(what: str, total: int) -> Iterator[Callable[[str, int], None]]:
    """Show two bars of bytes: read for the digest, and uploaded."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_progress_console(), transient=True) as progress:
        tasks = {
            "read": progress.add_task(f"reading {what}", total=total),
            "upload": progress.add_task(f"uploading {what}", total=total),
        }
        yield lambda phase, count: progress.advance(tasks[phase], count)


def _progress_console() -> Console:
    """Progress goes to stderr, so that stdout has the result alone."""
    return Console(stderr=True)


def _result_console() -> Console:
    """Off a terminal nothing is cut to fit a width that nobody sees."""
    return Console() if sys.stdout.isatty() else Console(width=WIDTH_OFF_TERMINAL)


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2))


def _print_exports(environment: dict[str, str]) -> None:
    for name, value in environment.items():
        print(f"export {name}={shlex.quote(value)}")


def _fail(message: str, exit_code: int) -> None:
    print(f"kelpie: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(exit_code)
