"""tests/cloud itself: it must not need an account to be known to work, nor start anything unasked."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_they_pass_on_a_stack_with_stand_ins(make_stack):
    stack = make_stack(f"t{os.urandom(3).hex()}")
    done = pytest_cloud("--stack", stack.name, environment=stack.cloud.environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 passed" in done.stdout
    assert "the jobs can cost up to $" in done.stdout
    assert stack.client("sagemaker").list_endpoints(NameContains=stack.name)["Endpoints"] == []


def test_none_of_them_runs_unless_a_stack_is_named():
    done = pytest_cloud(environment={})
    assert (done.returncode, done.stdout.split()[:2]) == (5, ["5", "deselected"]), done.stdout


def pytest_cloud(*arguments, environment):
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "tests/cloud", *arguments],
        cwd=ROOT,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
    )
