"""How tests wait for what happens in its own time."""

import time
from collections.abc import Callable
from typing import Any

PATIENCE_SECONDS = 300
"""The longest wait: for machines that are many times slower, and do other things, too. One that is over costs nothing
of it."""


def wait_for(condition: Callable[[], Any], told: Callable[[], Any] = lambda: None, pause_seconds: float = 0.02) -> Any:
    """Return the condition's first true value. told: what a failure says."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, told()
        time.sleep(pause_seconds)
    return value
