"""Install what OptimizeModel needs beyond the serving image, then run optimize.py with the same arguments.

python code/run_optimize.py OPT_ML ARTIFACT DATASET_CHANNEL MANIFEST_CHANNEL
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = ("requirements.txt", "optimize-requirements.txt")
"""The endpoint's, to which training has added what this artifact's network needs, and the engines."""
FAILURE_CHARACTERS = 1024  # SageMaker keeps this much of a job's FailureReason


class PackagesError(Exception):
    """A package could not be installed."""


def install(folder: Path) -> None:
    """Put what the requirements files pin into `folder`, and before the processes that this one starts.

    Only what is not there yet, and not what those packages name in turn: the image's own versions stay as they are.
    Raises PackagesError.
    """
    lines = [line for name in REQUIREMENTS for line in Path(__file__).with_name(name).read_text().splitlines()]
    pins = dict.fromkeys(line for line in lines if line and not line.startswith("#"))
    missing = [pin for pin in pins if not _is_installed(pin)]
    if not missing:
        return
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *missing]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise PackagesError(f"{', '.join(missing)} could not be installed: {done.stderr.strip()[-600:]}")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))


def _is_installed(pin: str) -> bool:
    name, _, version = pin.partition("==")
    try:
        return importlib.metadata.version(name) == version
    except importlib.metadata.PackageNotFoundError:
        return False


def main(arguments: list[str]) -> None:
    opt_ml = Path(arguments[0])
    try:
        install(opt_ml / "packages")
    except PackagesError as error:
        (opt_ml / "output").mkdir(exist_ok=True)
        (opt_ml / "output" / "failure").write_text(f"{type(error).__name__}: {error}"[:FAILURE_CHARACTERS])
        raise
    script = Path(__file__).with_name("optimize.py")
    os.execv(sys.executable, [sys.executable, str(script), *arguments])


if __name__ == "__main__":
    main(sys.argv[1:])
