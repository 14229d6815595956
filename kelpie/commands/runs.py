"""`kelpie run`, `stop`, `status` and `logs`: executions of the state machine."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import Annotated

import typer

from kelpie import execution, launch, local, status, summary, watch
from kelpie import logs as job_logs
from kelpie.commands.completion import execution_names, setting_keys
from kelpie.commands.terminal import (
    INTERRUPTED,
    Json,
    StackName,
    bytes_bars,
    connect,
    counted,
    fail,
    print_json,
    progress_console,
    result_console,
)
from kelpie.errors import CloudUnavailable, InvalidInput, RunFailed
from kelpie.stack import AWS_ERRORS, Stack, what_is_wrong


def run(
    dataset: Annotated[
        str | None,
        typer.Argument(metavar="DATASET", help="Folder or zip archive of labelled images, or an s3:// URI of one."),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="A setting of contracts/execution_input.schema.json; repeatable.",
            autocompletion=setting_keys,
        ),
    ] = None,
    attach: Annotated[
        str | None,
        typer.Option(
            metavar="EXECUTION", help="Follow an execution that was started before.", autocompletion=execution_names
        ),
    ] = None,
    stack_name: StackName = None,
    as_json: Json = False,
) -> None:
    """Tune, train, evaluate and deploy a classifier. The run is followed; Ctrl-C detaches from it, and it goes on."""
    if bool(dataset) == bool(attach):
        raise InvalidInput("kelpie run needs a data set, or --attach with an execution, and not both")
    stack, arn = _attach(attach, stack_name) if attach else _start(dataset or "", assignments or [], stack_name)
    console = progress_console()
    name = arn.rpartition(":")[2] + (f" --stack {shlex.quote(stack_name)}" if stack_name else "")
    try:
        (progress,) = watch.follow(stack, [arn], console)
    except KeyboardInterrupt:
        fail(
            f"detached: the run goes on. Follow it: kelpie run --attach {name}. Stop it: kelpie stop {name}",
            INTERRUPTED,
        )
    except AWS_ERRORS as error:
        what_to_do = (
            "run `kelpie up`, then `kelpie status`"
            if stack.is_local
            else f"the run goes on. Follow it: kelpie run --attach {name}"
        )
        raise CloudUnavailable(f"{what_is_wrong(error)} while the run was followed: {what_to_do}") from error
    document = summary.summarise(stack, progress.described)
    if as_json:
        print_json(document)
    else:
        summary.show(document, result_console())
    if document["status"] != "SUCCEEDED":
        summary.show_failure(document, console)
        raise RunFailed(summary.failure(document))


def stop(
    name: Annotated[
        str, typer.Argument(metavar="EXECUTION", help="Name or ARN of an execution.", autocompletion=execution_names)
    ],
    stack_name: StackName = None,
) -> None:
    """Stop an execution, and with it its jobs. What is in service stays in service."""
    execution.stop(connect(stack_name), name)


def show_status(
    watching: Annotated[
        bool, typer.Option("--watch", help="Follow the executions that run, until none does. Ctrl-C ends only this.")
    ] = False,
    stack_name: StackName = None,
    as_json: Json = False,
) -> None:
    """Show what is up and in service, and the latest executions."""
    stack = connect(stack_name)
    if watching:
        running = [listed["executionArn"] for listed in execution.running(stack)]
        if running:
            watch.follow(stack, running, progress_console())
    document = status.read(stack, None if stack_name else str(local.cloud().home))
    if as_json:
        print_json(document)
    else:
        status.show(document, result_console())


def logs(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="A job, a function, an endpoint or an execution. Default: the newest execution's jobs.",
            autocompletion=execution_names,
        ),
    ] = None,
    lines: Annotated[
        int, typer.Option("--lines", "-n", metavar="NUMBER", min=0, help="Newest lines to show; 0 for all.")
    ] = 200,
    stack_name: StackName = None,
    as_json: Json = False,
) -> None:
    """Print what jobs, functions and endpoints have logged."""
    found = job_logs.read(connect(stack_name), name, lines)
    if as_json:
        print_json(found)
        return
    for line in found:
        print(f"{line['time'][11:19]}  {line['source']}  {line['message']}")


def _attach(name: str, stack_name: str | None) -> tuple[Stack, str]:
    stack = connect(stack_name)
    return stack, execution.find(stack, name)


def _start(dataset: str, assignments: list[str], stack_name: str | None) -> tuple[Stack, str]:
    """Check everything that can be checked here, copy the data set if it is on this machine, and start an execution."""
    prepared = launch.prepare(dataset, assignments)
    stack = connect(stack_name)
    what = f"{Path(dataset).name}: {counted(len(prepared.files), 'file')}"
    bars = bytes_bars(what, prepared.bytes) if prepared.files else contextlib.nullcontext(lambda _phase, _bytes: None)
    with bars as advance:
        started = launch.start(stack, prepared, advance)
    if started.upload:
        copied = counted(started.upload.uploaded, "file")
        _tell(f"{copied} copied to {started.dataset_uri}, {started.upload.unchanged} there already")
    _tell(f"Execution {started.arn.rpartition(':')[2]} on {started.dataset_uri}")
    return stack, started.arn


def _tell(line: str) -> None:
    progress_console().print(line, soft_wrap=True)
