"""`kelpie logs`: what a job, a function or the jobs of an execution printed."""

from __future__ import annotations

import sys
from typing import Any

from kelpie import execution, log_streams
from kelpie.errors import InvalidInput
from kelpie.log_streams import TRAINING_JOBS_LOG_GROUP
from kelpie.stack import Stack

FUNCTION_LOG_GROUP = "/aws/lambda/"
ENDPOINT_LOG_GROUP = "/aws/sagemaker/Endpoints/"


def read(stack: Stack, name: str | None, lines: int) -> list[dict[str, Any]]:
    """Return the newest `lines` lines by time (0: all): of the job, function, endpoint or execution `name`.

    A function is named as its folder (`plan_run`) or in full. Without a name: the newest execution's jobs.
    Raises InvalidInput if there is nothing of that name, or it has printed nothing.
    """
    found = []
    for group, prefix in _places(stack, name):
        found += [(line, group) for line in log_streams.newest(stack, group, prefix, lines or sys.maxsize)]
    if not found:
        raise InvalidInput(f"there are no logs of {name or 'any execution'}: `kelpie status` shows what has run")
    found.sort(key=lambda item: item[0].at)
    return [
        {
            "time": line.at.isoformat(timespec="milliseconds"),
            "source": _source(group, line.stream),
            "log_group": group,
            "log_stream": line.stream,
            "message": line.message.rstrip("\n"),
        }
        for line, group in found[-lines:]
    ]


def _source(group: str, stream: str) -> str:
    """Return the job, or the function or endpoint, whose log it is."""
    return stream.partition("/")[0] if group == TRAINING_JOBS_LOG_GROUP else group.rpartition("/")[2]


def _places(stack: Stack, name: str | None) -> list[tuple[str, str]]:
    """Return the log groups and prefixes of log streams in which the lines may be."""
    if name is None:
        newest = execution.recent(stack, 1)
        if not newest:
            raise InvalidInput("there is no execution yet: start one with `kelpie run`")
        return [(TRAINING_JOBS_LOG_GROUP, _jobs_prefix(stack, newest[0]["executionArn"]))]
    functions = _functions(stack)
    short = name.replace("_", "-")
    for function in (name, f"{stack.endpoint_name}-{short}"):
        if f"{FUNCTION_LOG_GROUP}{function}" in functions:
            return [(f"{FUNCTION_LOG_GROUP}{function}", "")]
    try:
        return [(TRAINING_JOBS_LOG_GROUP, _jobs_prefix(stack, execution.find(stack, name)))]
    except InvalidInput:
        return [(TRAINING_JOBS_LOG_GROUP, f"{name}/"), (f"{ENDPOINT_LOG_GROUP}{name}", "")]


def _jobs_prefix(stack: Stack, arn: str) -> str:
    """Every job's name begins with the stack's name prefix, which is its endpoint's name, and the run's id."""
    return f"{stack.endpoint_name}-{execution.run_id(arn)}-"


def _functions(stack: Stack) -> set[str]:
    pages = (
        stack.client("logs")
        .get_paginator("describe_log_groups")
        .paginate(logGroupNamePrefix=f"{FUNCTION_LOG_GROUP}{stack.endpoint_name}-")
    )
    return {group["logGroupName"] for page in pages for group in page["logGroups"]}
