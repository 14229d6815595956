"""The parent of one process: obeys the cloud through a pipe, and leaves nothing behind. Run by processes.py:

    python -I -S supervisor.py CONTROL_FD program argument...

A line on the pipe is a number of seconds: SIGTERM now, SIGKILL to everything after that time. The end of the pipe (the
cloud has ended) means SIGKILL at once. On Linux the supervisor is the subreaper of all that its process starts, so that
a daemonised descendant is found as well, and the process dies with it (PR_SET_PDEATHSIG, which is bound to the *thread*
that forks: it could not be set from the cloud's threads). On macOS, which has neither, the process group is killed.

It imports as little as it can: it has to start in a few milliseconds.
"""

import contextlib
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def supervise(control: int, argv: list[str]) -> int:
    """Run argv, obey the control pipe, and return the exit code when neither the process nor any descendant is left."""
    inherited, control = control, os.dup(control)  # select takes numbers below 1,024, and the cloud's may be above
    os.close(inherited)
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
            while b"\n" in pending:
                grace, _, pending = pending.partition(b"\n")
                until = time.monotonic() + float(grace)
                deadline = until if deadline is None else min(deadline, until)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(main, signal.SIGTERM)
        if wake in ready:
            os.read(wake, 4096)
            code = _reap(main)
    return _end_all(main, code)


def _start(argv: list[str]) -> int:
    supervisor = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until it is no longer ignored: none may get lost
    main = os.fork()
    if main:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        return main
    try:
        os.setpgid(0, 0)
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for inherited in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(inherited, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
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
    """Kill the process group and every descendant until none is left. New ones may be forked meanwhile, hence the
    loop.
    """
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
    sys.exit(supervise(int(sys.argv[1]), sys.argv[2:]))
