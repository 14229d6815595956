"""`kelpie debug`: the debugger's rules on the tensors of a training that is over."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from kelpie import local, settings, tensors
from kelpie.commands.terminal import Json, StackName, connect, print_json, progress_console, result_console
from kelpie.errors import RunFailed


def debug(
    place: Annotated[
        str,
        typer.Argument(metavar="FOLDER|S3_PREFIX", help="Where hooks of smdebug's have left tensors."),
    ],
    parameter: Annotated[
        list[str] | None,
        typer.Option(metavar="RULE.NAME=VALUE", help="What a rule is to ask instead of its default; may be repeated."),
    ] = None,
    stack_name: StackName = None,
    as_json: Json = False,
) -> None:
    """Run the debugger's rules on a training's tensors. Exits with 1 if one finds an issue or fails.

    They run in the environment of training jobs, some 6 GB, which is installed first where it is not there yet.
    """
    for one in parameter or ():
        settings.check_rule_parameter(one)
    with tempfile.TemporaryDirectory() as scratch:
        if place.startswith("s3://"):
            folder = tensors.fetch(connect(stack_name).client("s3"), place, Path(scratch))
        else:
            folder = tensors.find(Path(place).expanduser())
        python = local.training_python(progress_console().print)
        document = tensors.review(python, folder, place, parameter or ())
    document["tensors"] = place
    if as_json:
        print_json(document)
    else:
        result_console().print(tensors.table(document["findings"]))
    found = [one["rule"] for one in document["findings"] if one["status"] != "NoIssuesFound"]
    if found:
        raise RunFailed(f"{len(found)} of {len(document['findings'])} rules found something: {', '.join(found)}")
