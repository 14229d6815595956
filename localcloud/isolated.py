"""Cuts a process off from the network, then becomes it, on Linux:

    python -I -S isolated.py program argument...

A network namespace of its own has a loopback interface and nothing else; the user namespace around it lets anyone have
one (https://man7.org/linux/man-pages/man7/user_namespaces.7.html).
"""

import ctypes
import fcntl
import functools
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # linux/sched.h
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1  # linux/sockios.h, linux/if.h


def isolated(argv: Sequence[str]) -> list[str]:
    """Return the command line of a process without a network."""
    return [sys.executable, "-I", "-S", __file__, *argv]


@functools.cache
def can_isolate() -> bool:
    """Whether this machine lets its users have namespaces."""
    if sys.platform != "linux":
        return False
    return subprocess.run(isolated(["true"]), check=False, capture_output=True).returncode == 0


def main(argv: list[str]) -> None:
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "this machine gives no namespaces")
    for file, content in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        Path("/proc/self", file).write_text(content)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", IFF_UP))
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    main(sys.argv[1:])
