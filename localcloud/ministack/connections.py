"""A repair of hypercorn, which MiniStack is served by: what a client has closed is closed."""

from collections.abc import Callable
from typing import Any

from hypercorn.asyncio import run

from localcloud.ministack.repairs import Repair


def _tcp_server(original: Any) -> Callable[..., Any]:
    """A connection waits for its keep-alive to end, though its client has closed it: the task that counts the time is
    among those that it waits for before it closes its socket."""

    class TCPServer(original):
        async def _read_data(self) -> None:
            await super()._read_data()
            await self.idle_task.stop()

    return TCPServer


REPAIRS = [
    Repair(
        "connections that clients have closed stay open for 75 seconds",
        run.__name__,
        "TCPServer",
        "3bfa72b31950",
        _tcp_server,
    )
]
