"""The SAM CLI takes the template through its life on the local cloud, unmodified, with nothing but the environment."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SAM = ROOT / ".venv-sam" / "bin" / "sam"
ARCHITECTURE = "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"
PARAMETERS = (
    "NamePrefix=samcli",
    f"FunctionRuntime=python{sys.version_info.major}.{sys.version_info.minor}",
    f"FunctionArchitecture={ARCHITECTURE}",
)


@pytest.mark.slow
def test_sam_builds_deploys_updates_rolls_back_and_deletes_the_stack(live, tmp_path):
    environment = (
        os.environ
        | live.cloud.environment
        | {
            "SAM_CLI_TELEMETRY": "0",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
    )

    def run(*command, exit_code=0):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == exit_code, done.stdout + done.stderr
        return done.stdout

    aws = (sys.executable, "-m", "awscli", "--output", "json")

    def deploy(template, *parameters, exit_code=0):
        """Return the status and the outputs of the stack after `sam deploy`."""
        options = ("--stack-name", "samcli", "--resolve-s3", "--no-progressbar", "--capabilities", "CAPABILITY_IAM")
        overrides = ("--parameter-overrides", *PARAMETERS, *parameters)
        run(str(SAM), "deploy", "--template-file", template, *options, *overrides, exit_code=exit_code)
        described = json.loads(run(*aws, "cloudformation", "describe-stacks", "--stack-name", "samcli"))["Stacks"][0]
        return described["StackStatus"], {one["OutputKey"]: one["OutputValue"] for one in described["Outputs"]}

    build = ("--template", str(ROOT / "template.yaml"), "--build-dir", "built", "--parameter-overrides", *PARAMETERS)
    run(str(SAM), "build", *build)
    status, outputs = deploy("built/template.yaml")
    assert status == "CREATE_COMPLETE"
    given = json.dumps({"dataset": f"s3://{outputs['Bucket']}/nothing/"})
    start = (*aws, "stepfunctions", "start-execution", "--state-machine-arn", outputs["StateMachineArn"])
    started = json.loads(run(*start, "--input", given))
    line = live.refused(1, "run", "--attach", started["executionArn"])
    assert "holds no images" in line

    assert deploy("built/template.yaml", "LogRetentionDays=7") == ("UPDATE_COMPLETE", outputs)
    broken = (tmp_path / "built" / "template.yaml").read_text()
    runtime = "    Runtime:\n      Ref: FunctionRuntime\n"
    assert broken.count(runtime) == 1
    (tmp_path / "built" / "broken.yaml").write_text(broken.replace(runtime, "    Runtime: nodejs22.x\n"))
    assert deploy("built/broken.yaml", exit_code=1) == ("UPDATE_ROLLBACK_COMPLETE", outputs)
    run(str(SAM), "delete", "--stack-name", "samcli", "--no-prompts")
    gone = ("cloudformation", "list-stacks", "--query", "StackSummaries[?StackName=='samcli'].StackStatus")
    assert set(json.loads(run(*aws, *gone))) == {"DELETE_COMPLETE"}
