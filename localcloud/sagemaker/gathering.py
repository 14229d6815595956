"""What comes one by one and is put together after some time, by a thread that runs only while there is something."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

CLOSE_SECONDS = 5.0

Item = TypeVar("Item")


class Gathering(Generic[Item]):
    """put is called in the thread, with all that came in `seconds()` since the first."""

    def __init__(
        self, name: str, seconds: Callable[[], float], put: Callable[[list[Item]], None], *, put_at_close: bool
    ):
        self._name, self._seconds, self._put, self._put_at_close = name, seconds, put, put_at_close
        self._changed = threading.Condition()
        self._closing = False
        self._items: list[Item] = []
        self._thread: threading.Thread | None = None

    def add(self, *items: Item) -> None:
        with self._changed:
            self._items += items
            if self._thread is None and not self._closing:
                self._thread = threading.Thread(target=self._put_later, name=self._name, daemon=True)
                self._thread.start()

    def reconsider(self) -> None:
        """Ask again how many seconds it is."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """End at once. What was gathered is put or dropped, as `put_at_close` says."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(CLOSE_SECONDS)

    def _put_later(self) -> None:
        began = time.monotonic()
        with self._changed:
            while not self._closing and (remaining := began + self._seconds() - time.monotonic()) > 0:
                self._changed.wait(remaining)
            items, self._items = self._items, []
            self._thread = None
            if self._closing and not self._put_at_close:
                return
        self._put(items)
