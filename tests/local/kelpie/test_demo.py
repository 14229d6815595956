"""`make demo`, as its user sees it, and that it leaves nothing behind however it ends."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.local.processes import running
from tests.waiting import PATIENCE_SECONDS, wait_for

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_make_demo_shows_the_whole_run_and_leaves_nothing(tmp_path, readme):
    (command,) = readme["Try it"][0]
    assert command == "make demo"
    done = subprocess.run(
        command.split(),
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=6 * PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    answers = re.findall(r"^\d{4}\.png +digit-\d +[01]\.\d{4} +(right|wrong.*)$", done.stdout, flags=re.MULTILINE)
    assert len(answers) >= 10
    assert answers.count("right") >= len(answers) - 1
    assert float(re.search(r"Test accuracy +([01]\.\d+)", done.stdout)[1]) >= 0.95
    assert len(re.findall(r"^\d +[01]\.\d{4} .* Completed", done.stdout, flags=re.MULTILINE)) >= 6
    for said in ("Chosen", "Endpoint", "Model", "Report", "TuneHyperparameters", "VerifyEndpoint", "SUCCEEDED"):
        assert said in done.stdout
    wait_until_nothing_is_left(tmp_path, ROOT / ".kelpie-demo")


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
        process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 1
    wait_until_nothing_is_left(tmp_path, tmp_path / ".kelpie-demo")


def environment(folder):
    """Its temporary folder is folder/tmp, so that what it leaves there is found."""
    (folder / "tmp").mkdir()
    return os.environ | {"TMPDIR": str(folder / "tmp")}


def wait_until_nothing_is_left(folder, demo):
    """Wait until there are neither temporary files nor processes that know the demo's folder."""

    def left():
        processes = [process.command for process in running() if process.knows(str(demo))]
        return [*processes, *map(str, (folder / "tmp").iterdir())]

    wait_for(lambda: not left(), left, pause_seconds=0.2)
