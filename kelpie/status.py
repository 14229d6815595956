"""`kelpie status`: what is up, what it serves and what it did lately."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from kelpie import execution
from kelpie.progress import trained_again
from kelpie.stack import Stack

RECENT_EXECUTIONS = 10


def read(stack: Stack, home: str | None) -> dict[str, Any]:
    """Return the document of `kelpie status --json`. `endpoint` is null as long as there is none.

    home: where a local cloud keeps its state; None for a stack on AWS.
    """
    serving = endpoint(stack)
    if serving and serving["lineage"]:
        serving["lineage"]["trained_again"] = list(trained_again(stack, serving["lineage"]["run_id"]).values())
    return {
        "cloud": {"status": "up", "endpoint_url": stack.endpoint_url, "home": home},
        "stack": {"name": stack.name, "status": stack.status, "outputs": stack.outputs},
        "endpoint": serving,
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
    """Return the endpoint that the inbox asks, with the lineage of what it serves, or None if there is none."""
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
    model = config["ProductionVariants"][0]["ModelName"]
    return {
        "name": described["EndpointName"],
        "status": described["EndpointStatus"],
        "config": described["EndpointConfigName"],
        "model": model,
        "failure_reason": described.get("FailureReason"),
        "lineage": lineage(sagemaker, model),
    }


def lineage(sagemaker: Any, model: str) -> dict[str, Any] | None:
    """Return where a model came from, by its package; None for one that no run registered.

    Keys: package_arn, approval, and what RegisterModel wrote of it: run_id, execution_arn, data_digest and so on.
    """
    container = sagemaker.describe_model(ModelName=model).get("PrimaryContainer", {})
    package_arn = container.get("Environment", {}).get("MODEL_PACKAGE_ARN")
    if package_arn is None:
        return None
    package = sagemaker.describe_model_package(ModelPackageName=package_arn)
    return {
        "package_arn": package_arn,
        "approval": package["ModelApprovalStatus"],
        **package["CustomerMetadataProperties"],
    }


def show(status: dict[str, Any], console: Console) -> None:
    lines = [
        f"Cloud      up at {status['cloud']['endpoint_url']}{_home(status['cloud']['home'])}",
        f"Stack      {status['stack']['name']}: {status['stack']['status']}",
        *(f"           {name}={value}" for name, value in sorted(status["stack"]["outputs"].items())),
        f"Endpoint   {_endpoint_line(status['endpoint'])}",
        *_lineage_lines(status["endpoint"]),
    ]
    for line in lines:
        console.print(line, soft_wrap=True)
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


def _lineage_lines(described: dict[str, Any] | None) -> list[str]:
    if described is None or described["lineage"] is None:
        return []
    came = described["lineage"]
    package = came["package_arn"].rpartition("model-package/")[2]
    source = f"run {came['run_id']}, data {came['data_digest'][:12]}, accuracy {float(came['accuracy']):.4f}"
    again = [f"           trained again: {reason}" for reason in came["trained_again"]]
    return [f"           from package {package} ({came['approval']}), {source}", *again]
