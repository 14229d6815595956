"""Processes of jobs, servers and functions that never outlive the cloud, however it ends.

Between the cloud and each process stands a small supervisor (this file, run by the interpreter alone). It holds the reading end of a
pipe whose writing end only the cloud has: when the cloud ends, by kill -9 too, the pipe closes and the supervisor kills the process
with all its descendants. On Linux it is their subreaper, so that a daemonised descendant is found as well, and the process dies with
its supervisor (PR_SET_PDEATHSIG, which is bound to the *thread* that forks: one reason why the supervisor does it and not the cloud).
On macOS, which has neither, it is the process group that is killed.

A process is a container's main process: when it ends, all that it left behind is killed; SIGTERM goes to it alone, as `docker stop`
does it, and SIGKILL to everything.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

if __name__ != "__main__":  # the supervisor itself starts in a few milliseconds because it imports no more than it needs
    import json
    import subprocess
    import threading
    from collections.abc import Callable, Mapping, Sequence
    from dataclasses import dataclass
    from pathlib import Path

    LONGEST_LINE_BYTES = 16384  # what container log drivers split at

    @dataclass(frozen=True)
    class ProcessSpec:
        """argv[0] is an absolute path or is looked up in env's PATH; env is the whole environment, nothing is inherited."""

        argv: Sequence[str]
        env: Mapping[str, str]
        cwd: Path

    class Supervised:
        """A running process. Lines of its stdout and stderr go to `on_line`, from a thread of its own, without their ends."""

        def __init__(self, spec: ProcessSpec, on_line: Callable[[str], None]):
            reading, self._control = os.pipe()
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", __file__, str(reading), json.dumps(list(spec.argv))],
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
            """Wait until the process and all its descendants are gone and every line was delivered; return `exit_code`."""
            self._ended.wait(timeout_seconds)
            return self.exit_code

        def terminate(self, grace_seconds: float) -> int:
            """Send SIGTERM, after the grace SIGKILL to it and its descendants; return its exit code. Returns at once if it has ended."""
            with self._control_lock:
                if not self._ended.is_set():
                    with contextlib.suppress(BrokenPipeError):
                        os.write(self._control, f"{grace_seconds}\n".encode())
            self._ended.wait()
            return self._process.returncode

        def _read(self) -> None:
            stream = self._process.stdout
            assert stream is not None
            while line := stream.readline(LONGEST_LINE_BYTES):
                self._on_line(line.decode(errors="replace").rstrip("\r\n"))
            stream.close()
            self._process.wait()
            with self._control_lock:
                os.close(self._control)
                self._ended.set()

    def spawn(spec: ProcessSpec, on_line: Callable[[str], None]) -> Supervised:
        """Start a process. Exit code 127 (with a line that says why) means that its program could not be started."""
        return Supervised(spec, on_line)


# --- the supervisor -------------------------------------------------------------------------------------------------------------

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def supervise(control: int, argv: list[str]) -> int:
    """Run argv, obey the control pipe, and return the exit code when neither the process nor any descendant is left."""
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    for ignored in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    main = _start(argv)
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)

    code: int | None = None
    deadline: float | None = None
    pending = b""
    while code is None:
        remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select([control, wake], [], [], remaining)
        if deadline is not None and time.monotonic() >= deadline:
            break
        if control in ready:
            order = os.read(control, 64)
            if not order:  # the cloud is gone
                break
            pending += order
            if deadline is None and b"\n" in pending:
                deadline = time.monotonic() + float(pending.split(b"\n")[0])
                with contextlib.suppress(ProcessLookupError):
                    os.kill(main, signal.SIGTERM)
        if wake in ready:
            os.read(wake, 4096)
            code = _reap(main)
    return _end_all(main, code)


def _start(argv: list[str]) -> int:
    supervisor = os.getpid()
    main = os.fork()
    if main:
        return main
    try:
        os.setpgid(0, 0)
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for inherited in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(inherited, signal.SIG_DFL)
        if os.getppid() == supervisor:
            os.execvp(argv[0], argv)
    except OSError as error:
        os.write(2, f"cannot start {argv[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _reap(main: int) -> int | None:
    """Collect ended children; return the main process's exit code once it has ended."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == main:
            ended = os.waitstatus_to_exitcode(status)
            code = ended if ended >= 0 else 128 - ended


def _end_all(main: int, code: int | None) -> int:
    """Kill the process group and every descendant until none is left. New ones may be forked meanwhile, hence the loop."""
    while True:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(main, signal.SIGKILL)
        for pid in _descendants():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return 128 + signal.SIGKILL if code is None else code
        if pid == main and code is None:
            ended = os.waitstatus_to_exitcode(status)
            code = ended if ended >= 0 else 128 - ended
        if pid == 0:
            time.sleep(0.005)


def _descendants() -> list[int]:
    """All processes below this one, by /proc; none where there is no /proc (there the process group must do)."""
    children: dict[int, list[int]] = {}
    try:
        entries = [entry for entry in os.listdir("/proc") if entry.isdigit()]  # noqa: PTH208 - pathlib costs its import
    except FileNotFoundError:
        return []
    for entry in entries:
        with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as file:  # noqa: PTH123 - see above
            parent = int(file.read().rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry))
    found = list(children.get(os.getpid(), []))
    for pid in found:
        found += children.get(pid, [])
    return found


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    import json

    sys.exit(supervise(int(sys.argv[1]), json.loads(sys.argv[2])))
