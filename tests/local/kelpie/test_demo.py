"""`make demo`, as its user sees it, and that it leaves nothing behind however it ends."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.local.processes import running

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_make_demo_shows_the_whole_run_and_leaves_nothing(tmp_path, readme):
    (command,) = readme["Try it"][0]
    assert command == "make demo"
    done = subprocess.run(
        command.split(), cwd=ROOT, env=environment(tmp_path), capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answers = re.findall(r"^\d{4}\.png +digit-\d +[01]\.\d{4} +(right|wrong.*)$", done.stdout, flags=re.MULTILINE)
    assert len(answers) >= 10
    assert answers.count("right") >= len(answers) - 1
    assert float(re.search(r"Test accuracy +([01]\.\d+)", done.stdout)[1]) >= 0.95
    assert len(re.findall(r"^\d +[01]\.\d{4} .* Completed", done.stdout, flags=re.MULTILINE)) >= 6
    for said in ("Chosen", "Endpoint", "Model", "Report", "TuneHyperparameters", "VerifyEndpoint", "SUCCEEDED"):
        assert said in done.stdout
    assert left_behind(tmp_path, ROOT / ".kelpie-demo") == []


def test_an_interrupted_demo_leaves_nothing(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-m", "kelpie.demo"],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout:
            if "PlanRun" in line:
                break
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    assert process.returncode == 1
    assert left_behind(tmp_path, tmp_path / ".kelpie-demo") == []


def environment(folder):
    """Its temporary folder is folder/tmp, so that what it leaves there is found."""
    (folder / "tmp").mkdir()
    return os.environ | {"TMPDIR": str(folder / "tmp")}


def left_behind(folder, demo):
    """Return temporary files, and processes that know the demo's folder, once they had a moment to end."""
    deadline = time.monotonic() + 20
    while (
        left := [
            *(process.command for process in running() if process.knows(str(demo))),
            *map(str, (folder / "tmp").iterdir()),
        ]
    ) and time.monotonic() < deadline:
        time.sleep(0.2)
    return left
