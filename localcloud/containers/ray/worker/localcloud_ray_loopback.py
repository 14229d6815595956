"""Keep Ray's workers from listening beyond this machine.

Ray Serve 2.57 binds the gRPC server of every replica, which unpickles what it is sent, to [::], whatever address its
node has (_on_initialized in ray/serve/_private/replica.py).
"""

from grpc.aio._server import Server


def bind() -> None:
    """Ray's setup hook of worker processes: a server that asks for all addresses gets 127.0.0.1."""
    add_insecure_port = Server.add_insecure_port

    def add_loopback_port(self: Server, address: str) -> int:
        return add_insecure_port(self, address.replace("[::]:", "127.0.0.1:"))

    Server.add_insecure_port = add_loopback_port
