"""The benchmark of the local cloud runs, and its figures are there; how good they are depends on the machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_it_prints_its_figures_beside_their_baselines():
    command = [sys.executable, "-m", "benchmarks.local_cloud", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    for name in ("boot", "job", "invocation"):
        assert figures[name]["seconds"] > 0, figures
        assert figures[name]["baseline"] > 0, figures
