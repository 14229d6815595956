"""`kelpie status`: what is up, what it serves and what it did lately."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from kelpie import execution
from kelpie.stack import Stack

RECENT_EXECUTIONS = 10


def read(stack: Stack, home: str | None) -> dict[str, Any]:
    """Return the document of `kelpie status --json`. `endpoint` is null as long as there is none.

    home: where a local cloud keeps its state; None for a stack on AWS.
    """
    return {
        "cloud": {"status": "up", "endpoint_url": stack.endpoint_url, "home": home},
        "stack": {"name": stack.name, "status": stack.status, "outputs": stack.outputs},
        "endpoint": endpoint(stack),
        "executions": [
            {
                "name": listed["name"],
                "execution_arn": listed["executionArn"],
                "status": listed["status"],
                "started_at": listed["startDate"].isoformat(timespec="seconds"),
                "ended_at": listed["stopDate"].isoformat(timespec="seconds") if listed.get("stopDate") else None,
            }
            for listed in execution.recent(stack, RECENT_EXECUTIONS)
        ],
    }


def endpoint(stack: Stack) -> dict[str, Any] | None:
    """Return name, status, config and model of the endpoint that the inbox asks, or None if there is none."""
    sagemaker = stack.client("sagemaker")
    names = [
        listed["EndpointName"]
        for page in sagemaker.get_paginator("list_endpoints").paginate(NameContains=stack.endpoint_name)
        for listed in page["Endpoints"]
    ]
    if stack.endpoint_name not in names:
        return None
    described = sagemaker.describe_endpoint(EndpointName=stack.endpoint_name)
    config = sagemaker.describe_endpoint_config(EndpointConfigName=described["EndpointConfigName"])
    return {
        "name": described["EndpointName"],
        "status": described["EndpointStatus"],
        "config": described["EndpointConfigName"],
        "model": config["ProductionVariants"][0]["ModelName"],
        "failure_reason": described.get("FailureReason"),
    }


def show(status: dict[str, Any], console: Console) -> None:
    lines = [
        f"Cloud      up at {status['cloud']['endpoint_url']}{_home(status['cloud']['home'])}",
        f"Stack      {status['stack']['name']}: {status['stack']['status']}",
        *(f"           {name}={value}" for name, value in sorted(status["stack"]["outputs"].items())),
        f"Endpoint   {_endpoint_line(status['endpoint'])}",
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if status["executions"]:
        table = Table("Execution", "Status", "Started", "Ended", box=None, pad_edge=False)
        for listed in status["executions"]:
            table.add_row(listed["name"], listed["status"], listed["started_at"], listed["ended_at"] or "")
        console.print(table)


def _home(home: str | None) -> str:
    return "" if home is None else f", state in {home}"


def _endpoint_line(described: dict[str, Any] | None) -> str:
    if described is None:
        return "none yet: `kelpie run` makes one"
    reason = f" ({described['failure_reason']})" if described["failure_reason"] else ""
    return (
        f"{described['name']}: {described['status']}{reason}, config {described['config']}, model {described['model']}"
    )
