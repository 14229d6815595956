"""Layers of environments, with tiny wheels that the test makes itself: no network, no torch."""

import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from localcloud.containers.environments import COMPLETE, EnvironmentBuildFailed, Environments


def write_wheel(folder: Path, name: str, version: str, answer: str) -> str:
    """Write a wheel of one module with the constant ANSWER; return its line for a requirements.txt."""
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{name}.py", f"ANSWER = {answer!r}\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return f"./{wheel.name}"


@pytest.fixture(scope="module")
def requirements(tmp_path_factory) -> Path:
    """The image `pytorch` on the layer `torch`, both of one small wheel."""
    folder = tmp_path_factory.mktemp("requirements")
    for layer, name in (("torch", "lowest"), ("pytorch", "middle")):
        (folder / layer).mkdir()
        line = write_wheel(folder / layer, name, "1.0", f"of {layer}")
        (folder / layer / "requirements.txt").write_text(f"--no-index  # no network\n{line}\n")
    return folder


@pytest.fixture(scope="module")
def environments(tmp_path_factory, requirements) -> Environments:
    return Environments(tmp_path_factory.mktemp("environments"), requirements)


def answer_of(python: Path, code: str) -> str:
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_each_layer_sees_those_below(environments, tmp_path):
    said: list[str] = []
    upper = tmp_path / "requirements.txt"
    overriding = write_wheel(tmp_path, "middle", "2.0", "of the overlay")
    upper.write_text(f"--no-index\nlowest==1.0\n{overriding}\n{write_wheel(tmp_path, 'highest', '1.0', 'x')}\n")
    overlay = environments.with_requirements("pytorch", upper, said.append)
    code = "import lowest, middle, highest; print(lowest.ANSWER, middle.ANSWER, highest.ANSWER, sep=', ')"
    assert answer_of(overlay.python, code) == "of torch, of the overlay, x"
    image = environments.image("pytorch", said.append)
    assert answer_of(image.python, "import middle; print(middle.ANSWER)") == "of pytorch"
    assert overlay.layers[1:] == image.layers
    assert not list(overlay.layers[0].rglob("lowest.py"))  # what is below is not installed again
    assert overlay.path("/usr/bin") == os.pathsep.join([*(f"{layer}/bin" for layer in overlay.layers), "/usr/bin"])

    said.clear()
    assert environments.with_requirements("pytorch", upper, said.append) == overlay
    assert said == []
    write_wheel(tmp_path, "highest", "1.0", "changed")
    changed = environments.with_requirements("pytorch", upper, said.append)
    assert answer_of(changed.python, "import highest; print(highest.ANSWER)") == "changed"


def test_empty_requirements_need_no_layer(environments, tmp_path):
    (tmp_path / "requirements.txt").write_text("# nothing\n\n")
    image = environments.image("pytorch", print)
    assert environments.with_requirements("pytorch", tmp_path / "requirements.txt", print) == image


def test_failure_says_what_pip_said_and_leaves_nothing(environments, tmp_path):
    (tmp_path / "requirements.txt").write_text("--no-index\nno-such-package==3\n")
    with pytest.raises(
        EnvironmentBuildFailed, match=r"pytorch-overlay-\w+ could not be built(.|\n)*no-such-package==3"
    ):
        environments.with_requirements("pytorch", tmp_path / "requirements.txt", print)
    root = environments.image("pytorch", print).layers[0].parent
    assert all((folder / COMPLETE).exists() for folder in root.iterdir() if folder.is_dir())


BUILD = (
    "import sys, pathlib\n"
    "from localcloud.containers.environments import Environments\n"
    "root, requirements, upper = map(pathlib.Path, sys.argv[1:])\n"
    "built = Environments(root, requirements).with_requirements('pytorch', upper, lambda line: print(line, flush=True))\n"
    "print('python', built.python)\n"
)


def test_two_builders_at_once_and_one_that_was_killed(environments, requirements, tmp_path):
    root = environments.image("pytorch", print).layers[0].parent
    upper = tmp_path / "requirements.txt"
    upper.write_text(f"--no-index\n{write_wheel(tmp_path, 'shared', '1.0', 'yes')}\n")
    command = [sys.executable, "-c", BUILD, str(root), str(requirements), str(upper)]

    killed = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert killed.stdout is not None
    assert killed.stdout.readline().startswith("building the environment")
    time.sleep(0.3)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()

    builders = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [builder.communicate(timeout=60)[0] for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0]
    assert sum("building the environment" in output for output in outputs) == 1
    (python,) = {output.splitlines()[-1].removeprefix("python ") for output in outputs}
    assert answer_of(Path(python), "import shared; print(shared.ANSWER)") == "yes"
