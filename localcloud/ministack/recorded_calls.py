"""What each identity is allowed by IAM, as a record: what a role uses can then be held against what it is granted.

Switched on by LOCALCLOUD_RECORD_CALLS, the path of a file. Each new combination adds a line of JSON to it:
{"principal": ..., "action": ..., "resource": ...}. Callers without policies, such as the account's root, are not in it,
since IAM evaluates nothing for them.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ministack.core import iam_evaluator

VARIABLE = "LOCALCLOUD_RECORD_CALLS"


def record_to(path: Path) -> None:
    """From now on, append to the file at `path`, which is made anew."""
    path.write_text("")
    iam_evaluator.evaluate = _recording(iam_evaluator.evaluate, path)


def _recording(evaluate: Callable[..., Any], path: Path) -> Callable[..., Any]:
    seen: set[tuple[str, ...]] = set()

    @functools.wraps(evaluate)
    def recording(context: Any, *policies: Any) -> Any:
        result = evaluate(context, *policies)
        call = (context.principal_arn, context.action, context.resource_arn)
        if result.decision == "Allow" and call not in seen:
            seen.add(call)
            line = json.dumps(dict(zip(("principal", "action", "resource"), call, strict=True)))
            with path.open("a") as file:
                file.write(f"{line}\n")
        return result

    return recording
