"""Run Ray's own commands one after the other in one interpreter, which spares importing Ray for each of them.

steps.py '[["ray", "start", "--head"], ["serve", "run", "config.yaml"]]'
"""

import importlib
import json
import os
import sys
from typing import Any

COMMANDS = {"ray": "ray.scripts.scripts", "serve": "ray.serve.scripts"}


def main(steps: list[list[str]]) -> None:
    os.environ["RAY_START_HOOK"] = f"{__name__}.{without_client_server.__name__}"
    for command, *arguments in steps:
        print("$", command, *arguments, flush=True)
        cli = importlib.import_module(COMMANDS[command]).cli
        cli.main(arguments, prog_name=command, standalone_mode=False)


def without_client_server(ray_params: Any, _head: bool) -> None:
    """Ray's hook on `ray start`: there is no option that leaves out the server for ray:// clients, whom nobody has."""
    ray_params.ray_client_server_port = None


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
