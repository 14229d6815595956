"""The command as a user runs it, and one cloud with the deployed stack that many tests share.

The shared cloud is brought up, and its run is made, by the very commands of README.md.
"""

import json
import os
import shlex
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest

from localcloud import LocalCloud
from tests.documentation import fences
from tests.local.processes import running
from tests.waiting import PATIENCE_SECONDS, wait_for

IMAGES_PER_SPLIT = {"train": 40, "valid": 10, "test": 10}
CLASSES = ("cat", "dog", "owl")
"""Their pictures are of the digits 0, 1 and 2: real images that a small network tells apart."""


@dataclass
class Kelpie:
    """Runs `python -m kelpie` in a folder of its own, with a home and a port of its own."""

    folder: Path
    port: int
    extra_environment: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / ".kelpie"

    @property
    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "KELPIE_"))}
        return inherited | {"KELPIE_HOME": str(self.home), "KELPIE_PORT": str(self.port)} | self.extra_environment

    @property
    def cloud(self) -> LocalCloud:
        return LocalCloud(self.home)

    def __call__(self, *arguments: str, timeout: float = 3 * PATIENCE_SECONDS) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments) as process:
            stdout, stderr = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "kelpie", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ok(self, *arguments: str, timeout: float = 3 * PATIENCE_SECONDS) -> str:
        """Run a command that must succeed, and return what it printed."""
        done = self(*arguments, timeout=timeout)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, exit_code: int, *arguments: str) -> str:
        """Run a command that must fail in one line, without a traceback, and return that line."""
        done = self(*arguments)
        assert done.returncode == exit_code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        lines = [line for line in done.stderr.splitlines() if line.startswith("kelpie: ")]
        assert len(lines) == 1, done.stderr
        return lines[0]

    def processes(self) -> list[str]:
        """Return the command lines of all processes that belong to this home, by their command line or environment."""
        return [process.command for process in running() if process.knows(str(self.folder))]

    def wait_until_alone(self) -> None:
        """Wait until no process of this home is left."""
        wait_for(lambda: self.processes() == [], self.processes)


@pytest.fixture
def kelpie(tmp_path: Path) -> Iterator[Kelpie]:
    """The command without a cloud; what a test brings up is taken down."""
    command = Kelpie(tmp_path, free_port())
    yield command
    command("down")


@pytest.fixture(scope="session")
def readme() -> dict[str, list[list[str]]]:
    """The commands of README.md by section: one list of lines a fence."""
    sections: dict[str, list[list[str]]] = {}
    for fence in fences():
        if (fence.page, fence.language) == ("README.md", "sh"):
            sections.setdefault(fence.section, []).append(fence.lines)
    return sections


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory, readme: dict[str, list[list[str]]]) -> Iterator[Kelpie]:
    """The shared cloud, up and deployed, with the data set `photos` in its folder."""
    command = Kelpie(tmp_path_factory.mktemp("live"), free_port())
    command.extra_environment["LOCALCLOUD_RECORD_CALLS"] = str(command.folder / "calls.jsonl")
    write_photos(command.folder / "photos")
    command.ok(*readme_arguments(readme, "up"))
    yield command
    command.ok(*readme_arguments(readme, "down"))
    command.wait_until_alone()


@pytest.fixture(scope="session")
def trained(live: Kelpie, readme: dict[str, list[list[str]]]) -> dict[str, Any]:
    """What `kelpie run --json` says of the README's run on the shared cloud, which leaves an endpoint in service."""
    return json.loads(live.ok(*readme_arguments(readme, "run"), "--json"))


@pytest.fixture(scope="session")
def session(live: Kelpie) -> boto3.Session:
    return live.cloud.session()


@pytest.fixture(scope="session")
def outputs(session: boto3.Session) -> dict[str, str]:
    stack = session.client("cloudformation").describe_stacks(StackName="kelpie")["Stacks"][0]
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def readme_arguments(readme: dict[str, list[list[str]]], command: str) -> list[str]:
    """Return the arguments of the README's last `kelpie COMMAND ...`: of a run, the one that needs no weights."""
    lines = [shlex.split(line) for block in readme["Your own folder"] for line in block]
    return [line[1:] for line in lines if line[:2] == [".venv/bin/kelpie", command]][-1]


def write_photos(folder: Path) -> None:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sklearn.datasets import load_digits
    digits = load_digits()
    for digit, label in enumerate(CLASSES):
        images = iter(digits.images[digits.target == digit])
        for split, count in IMAGES_PER_SPLIT.items():
            (folder / split / label).mkdir(parents=True)
            for number in range(1, count + 1):
                image = Image.fromarray((next(images) * 15.9375).astype("uint8")).resize((32, 32))
                image.save(folder / split / label / f"{number:03d}.jpg", quality=95)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
