"""The Python environments that stand for the file systems of container images, built once and kept in a cache.

Three layers, each a virtual environment that sees those below it through a .pth file: torch, which all images share;
the image's own packages; and for a job's requirements.txt, which SageMaker's toolkit installs in every job, an overlay
that is built the first time and found the next. A layer's folder is named by the digest of all that went into it.

    python -m localcloud.containers build pytorch --requirements training_code/requirements.txt
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from localcloud.processes import ProcessSpec, spawn

IMAGE_REQUIREMENTS = Path(__file__).parent
BASE_LAYER = "torch"
IMAGE_LAYERS = ("pytorch", "ray")
COMPLETE = "complete"  # the file that a layer's folder has when, and only when, it is whole
ERROR_LINES = 12


class EnvironmentBuildFailed(Exception):
    """An environment could not be built; the message says which, and what pip said."""


@dataclass(frozen=True)
class Environment:
    """A stack of layers, the uppermost first."""

    layers: tuple[Path, ...]

    @property
    def python(self) -> Path:
        return self.layers[0] / "bin" / "python"

    def path(self, beyond: str) -> str:
        """Return the PATH for a process in this environment; `beyond` is where it looks for what the environment
        lacks.
        """
        return os.pathsep.join([*(str(layer / "bin") for layer in self.layers), *filter(None, [beyond])])


class Environments:
    """Safe for many processes and threads at once: who comes second waits for the first and uses what it built.

    root: where they are kept; None for $LOCALCLOUD_CACHE or ~/.cache/localcloud. requirements: the folder with
    <layer>/requirements.txt for every layer."""

    def __init__(self, root: Path | None = None, requirements: Path = IMAGE_REQUIREMENTS):
        cache = Path(os.environ.get("LOCALCLOUD_CACHE") or Path.home() / ".cache" / "localcloud")
        self.root = (root or cache / "environments").resolve()
        self._requirements = requirements

    def image(self, name: str, on_progress: Callable[[str], None]) -> Environment:
        """Return an image's environment, built if need be. Raises EnvironmentBuildFailed."""
        base = self._layer(BASE_LAYER, self._requirements / BASE_LAYER / "requirements.txt", None, on_progress)
        return self._layer(name, self._requirements / name / "requirements.txt", base, on_progress)

    def with_requirements(
        self,
        name: str,
        requirements: Path,
        on_progress: Callable[[str], None],
        container: Mapping[str, str] | None = None,
    ) -> Environment:
        """Return an image's environment with a requirements.txt installed on top. Raises EnvironmentBuildFailed.

        container: its environment, whose PIP_* say where packages come from.
        """
        image = self.image(name, on_progress)
        if not _specifiers(requirements):
            return image
        pip = {key: value for key, value in (container or {}).items() if key.startswith("PIP_")}
        return self._layer(f"{name}-overlay", requirements, image, on_progress, pip)

    def built(self, name: str, requirements: Path) -> bool:
        """Whether an image's environment with a requirements.txt on top is there. Nothing is built."""
        below: Environment | None = None
        layers = {BASE_LAYER: self._requirements / BASE_LAYER, name: self._requirements / name}
        files = {layer: folder / "requirements.txt" for layer, folder in layers.items()}
        if _specifiers(requirements):
            files[f"{name}-overlay"] = requirements
        for layer, file in files.items():
            folder = self.root / f"{layer}-{_digest(file, below, {})}"
            if not (folder / COMPLETE).exists():
                return False
            below = Environment((folder, *(below.layers if below else ())))
        return True

    def alone(self, name: str, requirements: Path, on_progress: Callable[[str], None]) -> Environment:
        """Return an environment of a requirements.txt and nothing below it. Raises EnvironmentBuildFailed."""
        return self._layer(name, requirements, None, on_progress)

    def _layer(
        self,
        name: str,
        requirements: Path,
        below: Environment | None,
        on_progress: Callable[[str], None],
        pip: Mapping[str, str] | None = None,
    ) -> Environment:
        folder = self.root / f"{name}-{_digest(requirements, below, pip or {})}"
        layers = (folder, *(below.layers if below else ()))
        if not (folder / COMPLETE).exists():
            with self._locked(folder, on_progress):
                if not (folder / COMPLETE).exists():
                    specifiers = ", ".join(_specifiers(requirements))
                    on_progress(f"building the environment {folder.name}, once: {specifiers}")
                    _build(folder, requirements, below, pip or {})
        return Environment(layers)

    @contextmanager
    def _locked(self, folder: Path, on_progress: Callable[[str], None]) -> Iterator[None]:
        """Hold the lock of a layer; the system frees it when its holder ends, however it ends."""
        self.root.mkdir(parents=True, exist_ok=True)
        with folder.with_name(f".{folder.name}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_progress(f"waiting for {folder.name}, which another process is building")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _build(folder: Path, requirements: Path, below: Environment | None, pip_variables: Mapping[str, str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)  # what a killed builder left
    try:
        # Only the lowest layer has pip; the others see it, as they see everything below them.
        _run(
            folder.name,
            [sys.executable, "-m", "venv", *(["--without-pip"] if below else []), str(folder)],
            Path.cwd(),
            {},
        )
        if below:
            lines = [str(_site_packages(layer)) for layer in below.layers]
            (_site_packages(folder) / "layers_below.pth").write_text("\n".join(lines) + "\n")
        pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet"]
        _run(
            folder.name,
            [*pip, "install", "--requirement", requirements.name],
            requirements.resolve().parent,
            pip_variables,
        )
        (folder / COMPLETE).touch()
    except BaseException:  # an interruption too
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _run(name: str, command: list[str], folder: Path, variables: Mapping[str, str]) -> None:
    """Run a command of the build, which ends with this process, however it ends."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX", "PIP_USER")
    environment = {key: value for key, value in os.environ.items() if key not in hidden} | dict(variables)
    lines: list[str] = []
    process = spawn(ProcessSpec(command, environment, folder), lines.append)
    try:
        code = process.wait()
    finally:
        process.terminate(0)
    if code:
        said = [line for line in lines if line.startswith("ERROR")] or [line for line in lines if line.strip()]
        raise EnvironmentBuildFailed(
            f"the environment {name} could not be built: {' '.join(command[1:4])} ended with {code}:\n"
            + "\n".join(said[-ERROR_LINES:])
        )


def _site_packages(layer: Path) -> Path:
    return Path(sysconfig.get_path("purelib", "venv", {"base": str(layer), "platbase": str(layer)}))


def _specifiers(requirements: Path) -> list[str]:
    lines = (line.partition(" #")[0].strip() for line in requirements.read_text().splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _digest(requirements: Path, below: Environment | None, pip_variables: Mapping[str, str]) -> str:
    """Return a digest of the interpreter, the layers below, the requirements, the files (wheels, ...) that they name,
    and what pip is told: of a folder the names in it.
    """
    digest = hashlib.sha256(f"{platform.python_version()} {sysconfig.get_platform()}".encode())
    if below:
        digest.update(below.layers[0].name.encode())
    for name, value in sorted(pip_variables.items()):
        found = sorted(path.name for path in Path(value).iterdir()) if Path(value).is_dir() else [value]
        digest.update(f"\n{name}={found}".encode())
    for specifier in _specifiers(requirements):
        digest.update(f"\n{specifier}".encode())
        for word in specifier.split():
            named = requirements.parent / word
            if named.is_file():
                digest.update(hashlib.sha256(named.read_bytes()).digest())
    return digest.hexdigest()[:12]
