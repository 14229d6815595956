"""The processes of this machine, from Linux's /proc."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """A process as it was when it was looked at; it may have ended since."""

    pid: int
    name: str
    command: str
    environment: str

    def knows(self, text: str) -> bool:
        """Whether its command line or its environment holds a text, say the folder that it works for."""
        return text in self.command or text in self.environment


def running() -> Iterator[Process]:
    """All processes that we may look at, but for ourselves and those that end while we look."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, command, environment = (
                (folder / file).read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                for file in ("comm", "cmdline", "environ")
            )
        except OSError:
            continue
        if int(folder.name) != os.getpid():
            yield Process(int(folder.name), name, command, environment)
