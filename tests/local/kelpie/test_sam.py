"""The SAM CLI builds and deploys the template to the local cloud, unmodified, with nothing but the environment."""

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
def test_sam_build_and_sam_deploy_make_a_stack_whose_state_machine_runs(live, tmp_path):
    environment = (
        os.environ
        | live.cloud.environment
        | {
            "SAM_CLI_TELEMETRY": "0",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
    )

    def run(*command):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    build = ("--template", str(ROOT / "template.yaml"), "--build-dir", "built", "--parameter-overrides", *PARAMETERS)
    run(str(SAM), "build", *build)
    deploy = ("--template-file", "built/template.yaml", "--stack-name", "samcli", "--resolve-s3", "--no-progressbar")
    run(str(SAM), "deploy", *deploy, "--capabilities", "CAPABILITY_IAM", "--parameter-overrides", *PARAMETERS)

    aws = (sys.executable, "-m", "awscli", "--output", "json")
    described = json.loads(run(*aws, "cloudformation", "describe-stacks", "--stack-name", "samcli"))["Stacks"][0]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}
    assert described["StackStatus"] == "CREATE_COMPLETE"
    given = json.dumps({"dataset": f"s3://{outputs['Bucket']}/nothing/"})
    start = (*aws, "stepfunctions", "start-execution", "--state-machine-arn", outputs["StateMachineArn"])
    started = json.loads(run(*start, "--input", given))
    line = live.refused(1, "run", "--attach", started["executionArn"])
    assert "holds no images" in line
