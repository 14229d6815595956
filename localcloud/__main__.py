"""Run the local cloud's server: `python -m localcloud serve --home FOLDER --port 4566`.

`LocalCloud.start` runs it with `--detach`: the server then takes the home's lock, leaves the caller's session and
writes its log to `<home>/cloud.log`. Without it the server runs in the foreground until Ctrl-C.
"""

import argparse
import os
import sys
from pathlib import Path

from localcloud.cloud import ALREADY_RUNNING_EXIT_CODE, HomeLock


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    home = options.home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    lock = HomeLock(home)
    if not lock.acquire():
        print(f"{home} is already served by another local cloud", file=sys.stderr)
        return ALREADY_RUNNING_EXIT_CODE
    if options.detach and os.fork() > 0:
        os._exit(0)  # the child keeps the lock: it belongs to the open file, which both share
    if options.detach:
        os.setsid()
    lock.write_record(os.getpid(), options.port)

    from localcloud.ministack.server import serve  # MiniStack reads the environment when it is imported

    serve(home, options.port)
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m localcloud")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="run the server on 127.0.0.1")
    serve.add_argument("--home", type=Path, required=True, help="folder that keeps the cloud's state")
    serve.add_argument("--port", type=int, default=4566)
    serve.add_argument("--detach", action="store_true", help="leave the caller and run in the background")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
