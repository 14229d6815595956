"""Every action that the local SageMaker answers, and what it makes of each field, as a page for the documentation.

    python -m localcloud.sagemaker.fields > docs/local-cloud-fields.md

It is made of the tables by which requests are refused, and of botocore's model.
"""

import json
import sys
from collections.abc import Iterator
from typing import Any

from localcloud.sagemaker import (
    auto_scaling,
    endpoint_configs,
    endpoints,
    model_packages,
    models,
    target_tracking,
    training_requests,
    tuning_requests,
)
from localcloud.sagemaker.service import ACTIONS
from localcloud.sagemaker.validation import SAGEMAKER, Support, operation

TABLES = {
    "CreateEndpoint": endpoints.CREATE_SUPPORT,
    "CreateEndpointConfig": endpoint_configs.SUPPORT,
    "CreateHyperParameterTuningJob": tuning_requests.SUPPORT,
    "CreateModel": models.SUPPORT,
    "CreateModelPackage": model_packages.CREATE_SUPPORT,
    "CreateModelPackageGroup": model_packages.GROUP_SUPPORT,
    "CreateTrainingJob": training_requests.SUPPORT,
    "DescribeModelPackage": model_packages.DESCRIBE_SUPPORT,
    "ListModelPackageGroups": model_packages.LIST_GROUPS_SUPPORT,
    "ListTrainingJobs": training_requests.LIST_SUPPORT,
    "UpdateEndpoint": endpoints.UPDATE_SUPPORT,
    "UpdateEndpointWeightsAndCapacities": endpoints.WEIGHTS_SUPPORT,
    "UpdateModelPackage": model_packages.UPDATE_SUPPORT,
}
HEAD = """# The local SageMaker, field by field

Written by `python -m localcloud.sagemaker.fields` from the tables by which requests are refused, and botocore's model.

Actions whose fields are all honoured: {whole}.

Any other action is refused by name. Of the actions below, a field that is not honoured is refused by name as well
(`UnsupportedOperation`), but for those that are ignored on purpose. A trial of a tuning job is checked as the training
job that it is, too. What is said of a field holds for all below it.
"""
AUTO_SCALING = """# Application Auto Scaling, field by field

Of this service the local cloud has what scales the production variants of endpoints by target tracking on
`SageMakerVariantInvocationsPerInstance`, and it really scales them: where AWS makes two alarms for a policy, a thread
looks at the metric `InvocationsPerInstance` every {seconds:.0f} seconds. It grows a variant after {growing} minutes
in a row above the target value, and shrinks it after {shrinking} below {below:.0%} of it. So a policy has no alarms
(`Alarms` is empty), there are no scaling activities to describe, and a variant has one policy at most. An endpoint that
is deleted is released whoever deletes it, where AWS asks for the permission. Any other action is refused by name.
"""


def page() -> str:
    whole = ", ".join(sorted(ACTIONS.keys() - TABLES.keys()))
    scaling = AUTO_SCALING.format(
        seconds=auto_scaling.LOOK_SECONDS,
        growing=target_tracking.GROWING_MINUTES,
        shrinking=target_tracking.SHRINKING_MINUTES,
        below=target_tracking.SHRINKING_BELOW,
    )
    return "\n".join(
        [
            HEAD.format(whole=whole),
            *(section(action, TABLES[action]) for action in sorted(TABLES)),
            scaling,
            *(section(action, table, auto_scaling.SERVICE) for action, table in sorted(auto_scaling.TABLES.items())),
        ]
    )


def section(action: str, support: Support, service: str = SAGEMAKER) -> str:
    shape = operation(action, service).input_shape
    assert shape is not None
    refused = []
    lines = [f"## {action}\n", "| field | |", "|---|---|"]
    for path, kind, text in rows(shape, "", support):
        if kind == "refused":
            refused.append(f"`{path}`")
        else:
            lines.append(f"| `{path}` | {text} |")
    if refused:
        lines.append(f"\nRefused: {', '.join(refused)}.")
    return "\n".join(lines) + "\n"


def rows(shape: Any, path: str, support: Support) -> Iterator[tuple[str, str, str]]:
    """(field, honoured | limited | ignored | refused, what is said of it) for all below a shape."""
    for name, member in shape.members.items():
        yield from _rows_of(member, f"{path}.{name}" if path else name, support)


def _rows_of(member: Any, path: str, support: Support) -> Iterator[tuple[str, str, str]]:
    paths = {*support.honoured, *support.only, *support.ignored}
    below = [one for one in paths if one.startswith((f"{path}.", f"{path}[]"))]
    if path in support.only:
        values, reason = support.only[path]
        allowed = ", ".join(f"`{json.dumps(value)}`" for value in values)
        yield path, "limited", f"only {allowed}: {reason}"
    elif path in support.honoured:
        yield path, "honoured", "honoured"
    elif path in support.ignored:
        yield path, "ignored", f"ignored: {support.ignored[path]}"
    if path in support.honoured or not below:
        if path not in paths:
            yield path, "refused", ""
    elif member.type_name == "list":
        yield from _rows_of(member.member, f"{path}[]", support)
    elif member.type_name == "structure":
        if path in support.ignored:
            for one in sorted(below):
                yield from ((p, kind, text) for p, kind, text in rows(member, path, support) if p == one)
        else:
            yield from rows(member, path, support)


if __name__ == "__main__":
    sys.stdout.write(page())
