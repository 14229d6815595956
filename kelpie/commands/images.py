"""`kelpie classify`, `kelpie inbox` and `kelpie bench-endpoint`: images and what comes back for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from kelpie import bench, inbox, letters, status
from kelpie.commands.terminal import Json, StackName, connect, count_bar, print_json, progress_console, result_console
from kelpie.errors import CloudUnavailable, RunFailed
from kelpie.stack import Stack

Files = Annotated[list[str], typer.Argument(metavar="FILE", hidden=True)]
"""Named in the usage alone: a line of its own would only add `<list[str]>`."""


def classify(
    files: Files,
    timeout: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="Without a new result, until the rest is given up.")
    ] = 120,
    stack_name: StackName = None,
    as_json: Json = False,
) -> None:
    """Drop images into the inbox and print what comes back. Exits with 1 unless every image is classified."""
    stack = connect(stack_name)
    inbox.check(files)
    _require_endpoint(stack)
    with count_bar(len(files), "uploaded") as advance:
        dropped = inbox.drop(stack, files, advance)
    with count_bar(len(files), "classified") as advance:
        rows = inbox.collect(stack, dropped, timeout, advance)
    if as_json:
        print_json(rows)
    else:
        result_console().print(_answers(rows))
    without_label = [row for row in rows if row["status"] != "classified"]
    if without_label:
        raise RunFailed(f"{len(without_label)} of {len(rows)} images got no label")


def show_inbox(
    redrive: Annotated[bool, typer.Option("--redrive", help="Try once more what was given up.")] = False,
    stack_name: StackName = None,
    as_json: Json = False,
) -> None:
    """Show what the inbox has waiting, answered and given up."""
    stack = connect(stack_name)
    redriven = letters.redrive(stack) if redrive else 0
    if redrive:
        progress_console().print(f"{redriven} messages are in the queue again.")
    document = letters.read(stack) | {"redriven": redriven}
    if as_json:
        print_json(document)
    else:
        letters.show(document, result_console())


def bench_endpoint(
    files: Files,
    endpoint: Annotated[str | None, typer.Option(metavar="NAME", help="Its name. Default: the stack's.")] = None,
    most_clients: Annotated[
        int,
        typer.Option(
            min=1,
            max=256,
            metavar="NUMBER",
            help="Clients at the last level; each has twice as many as the one before.",
        ),
    ] = 16,
    seconds: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="How long each level asks.")] = 5,
    chart: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to draw a chart of it, SVG.")] = None,
    stack_name: StackName = None,
    as_json: Json = False,
) -> None:
    """Measure how many images a second an endpoint answers. Ever more clients ask about the given images, JPEG or PNG:
    throughput, latencies, the number of clients at which it is full, and what an image costs.
    """
    stack = connect(stack_name)
    contents = bench.read_images(files)
    levels = [2**power for power in range(most_clients.bit_length()) if 2**power <= most_clients]
    document = bench.run(stack, endpoint or stack.endpoint_name, contents, levels, seconds)
    if as_json:
        print_json(document)
    else:
        result_console().print(bench.chart(document))
        result_console().print(bench.sentence(document))
    if chart:
        from kelpie import bench_chart  # Vega, which no other command of these needs

        chart.write_text(bench_chart.svg(document), encoding="utf-8")


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
