"""Host names of a job's instances, for the Python processes of a job that has several: all of them are this machine.

The folder of this file is on PYTHONPATH, and LOCALCLOUD_HOSTS lists the names: algo-1,algo-2. The machine's own
resolver does not know them, nor does code that is not Python: give that MASTER_ADDR, which is an address.
"""

import functools
import os
import socket

NAMES = frozenset(os.environ.get("LOCALCLOUD_HOSTS", "").split(","))
ADDRESS = "127.0.0.1"


def _by_address(lookup):
    @functools.wraps(lookup)
    def look_up(host, *arguments, **options):
        return lookup(ADDRESS if host in NAMES else host, *arguments, **options)

    return look_up


class Socket(socket.socket):
    def connect(self, address):
        return super().connect(_known(address))

    def connect_ex(self, address):
        return super().connect_ex(_known(address))

    def bind(self, address):
        return super().bind(_known(address))


def _known(address):
    return (ADDRESS, *address[1:]) if isinstance(address, tuple) and address[0] in NAMES else address


for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
    setattr(socket, name, _by_address(getattr(socket, name)))
setattr(socket, "socket", Socket)  # noqa: B010 - a type cannot be assigned to otherwise
