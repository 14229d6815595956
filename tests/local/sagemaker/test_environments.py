"""Layers of environments, and PyTorch jobs in them, with tiny wheels made by the test: no network, no torch."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from localcloud.containers.environments import COMPLETE, EnvironmentBuildFailed, Environments
from localcloud.containers.images import Images
from localcloud.containers.pytorch import pytorch_image
from localcloud.isolated import can_isolate
from localcloud.sagemaker.service import SageMaker
from tests.local.sagemaker.conftest import BUCKET
from tests.waiting import PATIENCE_SECONDS


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
    "environments = Environments(root, requirements)\n"
    "built = environments.with_requirements('pytorch', upper, lambda line: print(line, flush=True))\n"
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
    outputs = [builder.communicate(timeout=PATIENCE_SECONDS)[0] for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0]
    assert sum("building the environment" in output for output in outputs) == 1
    (python,) = {output.splitlines()[-1].removeprefix("python ") for output in outputs}
    assert answer_of(Path(python), "import shared; print(shared.ANSWER)") == "yes"


@pytest.fixture
def pytorch_job(environments, outside, job, tmp_path):
    """Run a source directory in the image `pytorch`; return the job's description."""
    service = SageMaker(
        tmp_path / "home",
        Images({"pytorch": pytorch_image(environments)}),
        outside.ports(),
        "us-east-1",
        "123456789012",
    )

    def run(files: dict[str, bytes], program: str = "train.py", **members: Any) -> dict[str, Any]:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        hyperparameters = {
            "sagemaker_program": json.dumps(program),
            "sagemaker_submit_directory": json.dumps(outside.put("code/sourcedir.tar.gz", packed.getvalue())),
            "sagemaker_region": '"us-east-1"',
            "learning_rate": "0.001",
            "stage": "final",
            "weights": "/opt/ml/input/data/weights",
        }
        algorithm = {"TrainingImage": "1.dkr.ecr.us-east-1.amazonaws.com/pytorch:2.14", "TrainingInputMode": "File"}
        request = {"AlgorithmSpecification": algorithm, "HyperParameters": hyperparameters, **members}
        service.call("CreateTrainingJob", job("the-job", "", **request))
        return service.training_jobs.wait("the-job", PATIENCE_SECONDS)

    yield run
    service.close()


SCRIPT = b"""
import json, os, sys
import beside, middle
found = {name: os.environ[name] for name in ("SM_HPS", "SM_MODEL_DIR", "PYTHONPATH", "SM_CHECKPOINT_DIR")}
try:
    import added
    found["added"] = added.ANSWER
except ImportError:
    pass
print(json.dumps({"argv": sys.argv, "cwd": os.getcwd(), "middle": middle.ANSWER, **found}))
"""


def test_script_runs_as_the_toolkit_runs_it(pytorch_job, outside, tmp_path):
    wheel = tmp_path / write_wheel(tmp_path, "added", "1.0", "by the job").removeprefix("./")
    files = {
        "train.py": SCRIPT,
        "beside.py": b"",
        "requirements.txt": f"--no-index\n./{wheel.name}\n".encode(),
        wheel.name: wheel.read_bytes(),
    }
    described = pytorch_job(files, Environment={"SM_CHECKPOINT_DIR": "/opt/ml/checkpoints"})
    assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
    *_, built, line = outside.log("the-job")
    assert built.startswith("building the environment pytorch-overlay-")
    found = json.loads(line)
    opt_ml = found["SM_MODEL_DIR"].removesuffix("/model")
    weights = f"{opt_ml}/input/data/weights"
    assert found["argv"] == ["train.py", "--learning_rate", "0.001", "--stage", "final", "--weights", weights]
    assert json.loads(found["SM_HPS"]) == {"learning_rate": 0.001, "stage": "final", "weights": weights}
    assert found["cwd"] == found["PYTHONPATH"] == f"{opt_ml}/code"
    assert found["SM_CHECKPOINT_DIR"] == f"{opt_ml}/checkpoints"
    assert (found["middle"], found["added"]) == ("of pytorch", "by the job")


@pytest.mark.skipif(not can_isolate(), reason="this machine has no network namespaces for its users")
def test_a_job_without_a_network_takes_its_code_and_its_wheels_from_channels(pytorch_job, outside, tmp_path):
    write_wheel(tmp_path, "added", "1.0", "from the channel")
    uri = outside.put("wheels/added-1.0-py3-none-any.whl", (tmp_path / "added-1.0-py3-none-any.whl").read_bytes())
    files = {"train.py": SCRIPT, "beside.py": b"", "requirements.txt": b"added==1.0\n"}
    hyperparameters = {
        "sagemaker_program": '"train.py"',
        "sagemaker_submit_directory": '"/opt/ml/input/data/code/sourcedir.tar.gz"',
    }
    described = pytorch_job(
        files,
        HyperParameters=hyperparameters,
        InputDataConfig=[
            {"ChannelName": name, "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": where}}}
            for name, where in (
                ("code", f"s3://{BUCKET}/code/sourcedir.tar.gz"),
                ("wheels", uri.rpartition("/")[0] + "/"),
            )
        ],
        Environment={
            "SM_CHECKPOINT_DIR": "/opt/ml/checkpoints",
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": "/opt/ml/input/data/wheels",
        },
        EnableNetworkIsolation=True,
    )
    assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
    assert described["EnableNetworkIsolation"] is True
    assert json.loads(outside.log("the-job")[-1])["added"] == "from the channel"


def test_shell_script_gets_its_options(pytorch_job, outside):
    described = pytorch_job({"bin/run.sh": b'#!/bin/sh\necho "$1 $2"\n'}, program="bin/run.sh")
    assert described["TrainingJobStatus"] == "Completed", described.get("FailureReason")
    assert outside.log("the-job") == ["--learning_rate 0.001"]


def test_requirements_that_cannot_be_installed_are_the_reason(pytorch_job, outside):
    described = pytorch_job({"train.py": b"", "requirements.txt": b"--no-index\nno-such-package==3\n"})
    assert described["TrainingJobStatus"] == "Failed"
    assert described["FailureReason"].startswith("ClientError: the environment pytorch-overlay-")
    assert "no-such-package==3" in described["FailureReason"]
    assert any("no-such-package==3" in line for line in outside.log("the-job"))


def test_missing_script_is_the_reason(pytorch_job):
    described = pytorch_job({"other.py": b""})
    assert described["FailureReason"] == (
        "ClientError: the source directory has no 'train.py' (sagemaker_program); it holds other.py"
    )


def test_missing_source_is_the_reason(pytorch_job):
    hyperparameters = {
        "sagemaker_program": '"train.py"',
        "sagemaker_submit_directory": '"s3://the-bucket/none.tar.gz"',
    }
    described = pytorch_job({}, HyperParameters=hyperparameters)
    assert described["FailureReason"].startswith("ClientError: cannot download s3://the-bucket/none.tar.gz: ")


def test_entry_point_runs_in_the_images_environment(pytorch_job, outside):
    algorithm = {
        "TrainingImage": "pytorch",
        "TrainingInputMode": "File",
        "ContainerEntrypoint": ["python", "-c", "import middle; print(middle.ANSWER)"],
    }
    assert pytorch_job({}, AlgorithmSpecification=algorithm)["TrainingJobStatus"] == "Completed"
    assert outside.log("the-job") == ["of pytorch"]
