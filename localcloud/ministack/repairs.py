"""Repairs of MiniStack's defects, from outside, for the one version that is pinned.

Each repair replaces one function. Before anything is replaced, the source of every such function is compared with the
one that the repair was written for: an upgraded MiniStack is refused at the start, by function name, instead of being
repaired wrongly. The tests also run on MiniStack as it is, where each must show its defect: a repair that upstream has
made superfluous fails a test.
"""

import hashlib
import importlib
import importlib.metadata
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

VERSION = "1.5.33"
REPAIRED = (
    "alarms",
    "connections",
    "encryption",
    "executions",
    "function_packages",
    "identities",
    "lambdas",
    "sagemaker_authorisation",
    "state_machines",
    "versions",
)
"""The modules beside this one that have REPAIRS; they import MiniStack, which reads its environment then."""


class UnknownMiniStack(Exception):
    """The installed MiniStack is not the one that the repairs were written for."""


@dataclass(frozen=True)
class Repair:
    defect: str
    module: str
    function: str
    digest: str
    """Of the source of the function that is replaced: the first twelve hex digits of its SHA-256."""
    repaired: Callable[[Callable[..., Any]], Callable[..., Any]]
    """From the original function to its replacement."""

    def found_digest(self) -> str:
        function = getattr(importlib.import_module(self.module), self.function, None)
        if function is None:
            return "missing"
        return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()[:12]


def apply() -> None:
    """Apply all repairs. Raises UnknownMiniStack, and then none is applied."""
    installed = importlib.metadata.version("ministack")
    if installed != VERSION:
        raise UnknownMiniStack(
            f"MiniStack {installed} is installed, but the local cloud repairs {VERSION}: install that"
        )
    modules = [importlib.import_module(f"localcloud.ministack.{name}") for name in REPAIRED]
    repair_all([repair for module in modules for repair in module.REPAIRS])


def repair_all(repairs: list[Repair]) -> None:
    """Raises UnknownMiniStack if a function is not the one that its repair was written for; then none is replaced."""
    changed = [repair for repair in repairs if repair.found_digest() != repair.digest]
    if changed:
        functions = ", ".join(f"{repair.module}.{repair.function} ({repair.defect})" for repair in changed)
        raise UnknownMiniStack(
            f"these functions of MiniStack are not the ones that the local cloud repairs: {functions}. "
            "Install the pinned version, or review and renew these repairs."
        )
    for repair in repairs:
        module = importlib.import_module(repair.module)
        setattr(module, repair.function, repair.repaired(getattr(module, repair.function)))
