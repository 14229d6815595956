"""Connections that their clients have closed."""

import http.client
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts sockets in /proc")
CLOSED_BY_THE_CLIENT = "08"  # CLOSE_WAIT: https://docs.kernel.org/networking/proc_net_tcp.html


def half_closed(session) -> int:
    """How many connections of the server a client has closed and it has not."""
    port = urlsplit(session.client("s3").meta.endpoint_url).port
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(local.endswith(f":{port:04X}") and state == CLOSED_BY_THE_CLIENT for _, local, _, state, *_ in lines)


def ask_and_close(session) -> None:
    address = urlsplit(session.client("s3").meta.endpoint_url)
    for _ in range(5):
        connection = http.client.HTTPConnection(address.hostname, address.port)
        connection.request("GET", "/_ministack/health")
        connection.getresponse().read()
        connection.close()


def test_are_closed_by_the_server_too(session, until):
    ask_and_close(session)
    until(lambda: half_closed(session) == 0)


def test_upstream_keeps_them_until_their_keep_alive_ends(upstream, until):
    ask_and_close(upstream)
    until(lambda: half_closed(upstream) >= 5)
