"""Every command of README.md is run: here, by the fixtures of this folder, or by test_demo.py; of the two runs the one
that needs no weights from the network.
"""

import os
import subprocess
import sys

import pytest


def test_the_readme_has_no_command_that_is_not_run(readme):
    assert readme["Try it"] == [["make demo"]]
    (install, *commands), (from_scratch,), _aws = readme["Your own folder"]
    assert install == "make install"
    assert from_scratch.startswith(f"{commands[1]} --set model.weights=none ")
    assert [line.split()[1] for line in commands] == ["up", "run", "classify", "status", "down"]
    assert [section for section in readme if readme[section]] == ["Try it", "Your own folder"]


@pytest.mark.slow
def test_the_commands_of_your_own_folder_do_what_it_says(readme, live, trained):
    assert trained["status"] == "SUCCEEDED"
    lines = {line.split()[1]: line for line in readme["Your own folder"][0] if "kelpie" in line}
    assert "classified" in shell(live, lines["classify"])
    assert "InService" in shell(live, lines["status"])


@pytest.mark.slow
def test_any_aws_client_talks_to_the_cloud_as_it_says(readme, live, trained):
    assert trained["status"] == "SUCCEEDED"
    printed = shell(live, "set -e\n" + "\n".join(readme["Your own folder"][-1]))
    assert "kelpie-train-and-deploy" in printed
    assert "results/" in printed


def shell(live, script):
    """Run lines of the README in the folder that holds `photos`, with .venv where they look for it."""
    venv = live.folder / ".venv"
    if not venv.exists():
        venv.symlink_to(sys.prefix)
    environment = live.environment | {"PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=live.folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
