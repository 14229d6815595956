"""What the page shows, read from AWS through the command's own client code. Several windows share one reading."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from kelpie import execution, letters, status
from kelpie.progress import Follower, Progress
from kelpie.stack import Stack

MOST_FOLLOWED = 16
Value = TypeVar("Value")


class Fresh(Generic[Value]):
    """A reading that is made again only once it is older than so many seconds, by one thread at a time."""

    def __init__(self, read: Callable[[], Value], seconds: float):
        self._read = read
        self._seconds = seconds
        self._lock = threading.Lock()
        self._value: Value | None = None
        self._read_at = float("-inf")

    def get(self) -> Value:
        with self._lock:
            if self._value is None or time.monotonic() - self._read_at > self._seconds:
                self._value = self._read()
                self._read_at = time.monotonic()
            return self._value


class Readings:
    def __init__(self, stack: Stack, home: str | None):
        self.stack = stack
        self._status = Fresh(lambda: status.read(stack, home), stack.poll_seconds)
        self._waiting = Fresh(lambda: letters.waiting(stack), stack.poll_seconds)
        self._lock = threading.Lock()
        self._runs: OrderedDict[str, Fresh[Progress]] = OrderedDict()

    def status(self) -> dict[str, Any]:
        return self._status.get()

    def waiting(self) -> dict[str, int]:
        return self._waiting.get()

    def run(self, name: str) -> Progress:
        """Return what the execution of that name has come to. Raises InvalidInput if there is none."""
        with self._lock:
            followed = self._runs.get(name)
        if followed is None:
            followed = Fresh(Follower(self.stack, execution.find(self.stack, name)).read, self.stack.poll_seconds)
        with self._lock:
            followed = self._runs.setdefault(name, followed)
            self._runs.move_to_end(name)
            while len(self._runs) > MOST_FOLLOWED:
                self._runs.popitem(last=False)
        return followed.get()
