"""Processes of jobs, servers and functions that never outlive the cloud, however it ends.

Between the cloud and each process stands a small supervisor (supervisor.py), which holds the reading end of a pipe
whose writing end only the cloud has. When the cloud ends, by kill -9 too, the pipe closes and the supervisor kills the
process with all its descendants.

A process is a container's main process: when it ends, all that it left behind is killed; SIGTERM goes to it alone, as
`docker stop` does it, and SIGKILL to everything.
"""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

SUPERVISOR = Path(__file__).with_name("supervisor.py")
LONGEST_LINE_BYTES = 16384  # what container log drivers split at


@dataclass(frozen=True)
class ProcessSpec:
    """argv[0] is an absolute path or is looked up in env's PATH; env is the whole environment, nothing is
    inherited.
    """

    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: Path


class Supervised:
    """A running process. Lines of its stdout and stderr go to `on_line`, from a thread of its own, without their
    ends.
    """

    def __init__(self, spec: ProcessSpec, on_line: Callable[[str], None]):
        reading, self._control = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(SUPERVISOR), str(reading), *spec.argv],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=dict(spec.env),
                cwd=spec.cwd,
                pass_fds=(reading,),
                start_new_session=True,
            )
        except OSError:
            os.close(self._control)
            raise
        finally:
            os.close(reading)
        self._on_line = on_line
        self._control_lock = threading.Lock()
        self._ended = threading.Event()
        self._reader = threading.Thread(target=self._read, name=f"lines of {self._process.pid}", daemon=True)
        self._reader.start()

    @property
    def exit_code(self) -> int | None:
        """None while it runs; 128 + n if signal n ended it, as containers have it."""
        return self._process.returncode if self._ended.is_set() else None

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Wait until the process and all its descendants are gone and every line was delivered; return
        `exit_code`.
        """
        self._ended.wait(timeout_seconds)
        return self.exit_code

    def begin_termination(self, grace_seconds: float) -> None:
        """Send SIGTERM and return at once; after the grace the process and its descendants are killed. `wait`
        tells when.
        """
        with self._control_lock:
            if not self._ended.is_set():
                with contextlib.suppress(BrokenPipeError):
                    os.write(self._control, f"{grace_seconds}\n".encode())

    def terminate(self, grace_seconds: float) -> int:
        """Send SIGTERM, after the grace SIGKILL to it and its descendants; return its exit code. Returns at once
        if it has ended.
        """
        self.begin_termination(grace_seconds)
        self._ended.wait()
        return self._process.returncode

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        while line := stream.readline(LONGEST_LINE_BYTES):
            try:
                self._on_line(line.decode(errors="replace").rstrip("\r\n"))
            except Exception:  # a process that nobody reads from would wait for ever
                logger.exception("a line of process %d was lost", self._process.pid)
        stream.close()
        self._process.wait()
        with self._control_lock:
            os.close(self._control)
            self._ended.set()


def spawn(spec: ProcessSpec, on_line: Callable[[str], None]) -> Supervised:
    """Start a process. Exit code 127 (with a line that says why) means that its program could not be started."""
    return Supervised(spec, on_line)
