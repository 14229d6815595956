"""OptimizeModel's start: what the image lacks is installed for the job alone, and nothing else is."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[3] / "inference_code" / "run_optimize.py"
OPTIMIZE = "import json, sys, given; print(json.dumps([given.__file__, sys.argv[1:]]))"


@pytest.fixture
def job(tmp_path):
    """Run the script with its own requirements and a stand-in for optimize.py; pip finds `given` 1.0 alone."""
    with zipfile.ZipFile(tmp_path / "given-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("given.py", "")
        wheel.writestr("given-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: given\nVersion: 1.0\n")
        wheel.writestr("given-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("given-1.0.dist-info/RECORD", "")
    code = tmp_path / "code"
    code.mkdir()
    shutil.copy(SCRIPT, code)
    (code / "optimize.py").write_text(OPTIMIZE)
    (tmp_path / "opt_ml").mkdir()

    def run(*pins, artifact=()):
        (code / "requirements.txt").write_text("".join(f"{pin}\n" for pin in artifact))
        (code / "optimize-requirements.txt").write_text("# a comment\n" + "".join(f"{pin}\n" for pin in pins))
        environment = os.environ | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
        command = [sys.executable, code / "run_optimize.py", tmp_path / "opt_ml", "artifact", "dataset", "manifest"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


def test_what_the_image_lacks_is_installed_below_the_jobs_own_folder(job, tmp_path):
    done = job("given==1.0", f"numpy=={np.__version__}")
    assert done.returncode == 0, done.stderr
    place, arguments = json.loads(done.stdout)
    assert place == str(tmp_path / "opt_ml" / "packages" / "given.py")
    assert arguments == [str(tmp_path / "opt_ml"), "artifact", "dataset", "manifest"]
    assert not (tmp_path / "opt_ml" / "packages" / "numpy").exists()


def test_what_the_artifact_s_network_needs_is_installed_too(job, tmp_path):
    done = job(f"numpy=={np.__version__}", artifact=["given==1.0"])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0] == str(tmp_path / "opt_ml" / "packages" / "given.py")


def test_what_cannot_be_installed_fails_the_job_by_its_name(job, tmp_path):
    done = job("given==2.0")
    assert done.returncode != 0
    failure = (tmp_path / "opt_ml" / "output" / "failure").read_text()
    assert failure.startswith("PackagesError: given==2.0 could not be installed: ")
    assert len(failure) <= 1024


def test_with_everything_there_nothing_is_installed(job, tmp_path):
    done = job(f"numpy=={np.__version__}")
    assert "No module named 'given'" in done.stderr  # the stand-in ran, with what the image has
    assert not (tmp_path / "opt_ml" / "packages").exists()
