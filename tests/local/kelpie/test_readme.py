"""Commands of README.md as they stand there; tests/contract/test_documentation.py holds that none is left out."""

import json
import os
import re
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_the_commands_of_your_own_folder_do_what_it_says(readme, live, trained):
    assert trained["status"] == "SUCCEEDED"
    lines = {line.split()[1]: line for line in readme["Your own folder"][0]}
    assert list(lines) == ["install", "up", "run", "classify", "status", "down"]  # fixtures run what is not run here
    assert "classified" in shell(live, lines["classify"])
    assert "InService" in shell(live, lines["status"])


@pytest.mark.slow
def test_any_aws_client_talks_to_the_cloud_as_it_says(readme, live, trained):
    assert trained["status"] == "SUCCEEDED"
    printed = shell(live, "set -e\n" + "\n".join(readme["Your own folder"][-1]))
    assert "kelpie-train-and-deploy" in printed
    assert "results/" in printed


@pytest.mark.slow
def test_a_stack_is_given_data_a_run_and_an_image_by_the_aws_cli_as_it_says(readme, live, trained, outputs, session):
    assert trained["status"] == "SUCCEEDED"
    by_stack, by_hand = readme["Deploying to AWS in five minutes"][:2]
    script = ["set -e", 'eval "$(.venv/bin/kelpie env)"', "cp photos/test/cat/001.jpg photo.jpg"]
    printed = shell(live, "\n".join([*script, *(line for line in by_stack if line.startswith("kelpie classify"))]))
    assert "classified" in printed
    words = {"STATE_MACHINE_ARN": outputs["StateMachineArn"], "BUCKET": outputs["Bucket"]}
    filled = [re.sub("|".join(words), lambda word: words[word[0]], line) for line in by_hand]
    printed = shell(live, "\n".join([*script, *filled]))
    arn = re.search(r"arn:\S+:execution:[^\s\"]+", printed)[0]
    started = session.client("stepfunctions").describe_execution(executionArn=arn)
    assert json.loads(started["input"]) == {"dataset": f"s3://{outputs['Bucket']}/datasets/photos/"}
    live("stop", arn)  # unless it has ended: these photos are too few for the default's batches


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
