"""Run Ray's own commands one after the other in one interpreter, which spares importing Ray for each of them.

steps.py '[["ray", "start", "--head"], ["serve", "run", "config.yaml"]]'
"""

import json
import sys

import ray.scripts.scripts
import ray.serve.scripts

COMMANDS = {"ray": ray.scripts.scripts.cli, "serve": ray.serve.scripts.cli}

for command, *arguments in json.loads(sys.argv[1]):
    print("$", command, *arguments, flush=True)
    COMMANDS[command].main(arguments, prog_name=command, standalone_mode=False)
