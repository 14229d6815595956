"""Start the fleets of test_ray_serving.py and wait to be killed: FOLDER MARK '{"name": port, ...}'.

Those named lean* have a backend of their own, at the same port of the container, as all of a stack's endpoints have.
FOLDER/<name> is the unpacked artifact; FOLDER/<name>.log gets the server's lines, FOLDER/<name>.spec.json what was
started.
"""

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

from localcloud.containers.environments import Environments
from localcloud.containers.images import ServingContainer
from localcloud.containers.ray import ray_image
from localcloud.processes import Supervised, spawn


def start(folder: Path, name: str, port: int, mark: str) -> Supervised:
    work_folder = folder / f"{name}.work"
    work_folder.mkdir()
    log = (folder / f"{name}.log").open("w", buffering=1)
    serving = ray_image(Environments()).serving
    assert serving is not None
    environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "MARK": mark}
    if name.startswith("lean"):
        environment["RAYSERVE_BACKEND_URL"] = "http://127.0.0.1:8001"
    spec = serving(ServingContainer(folder / name, port, work_folder, environment, print))
    (folder / f"{name}.spec.json").write_text(json.dumps(dataclasses.asdict(spec), default=str))
    return spawn(spec, lambda line: print(line, file=log))


folder, mark = Path(sys.argv[1]), sys.argv[2]
servers = [start(folder, name, port, mark) for name, port in json.loads(sys.argv[3]).items()]
signal.pause()
