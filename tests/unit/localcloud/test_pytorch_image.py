"""The PyTorch launcher keeps the training toolkit's contract.

`toolkit_contract.json` was recorded from sagemaker-training 5.1.4 itself (`Environment().to_env_vars()` and
`to_cmd_args()`) with the configuration that it holds, on two cores, and /opt/ml as its base folder.
"""

import json
from pathlib import Path

import pytest

from localcloud.containers.environments import Environments
from localcloud.containers.images import LaunchError, TrainingContainer
from localcloud.containers.pytorch import (
    command_line,
    launch_training,
    parsed,
    script_hyperparameters,
    toolkit_variables,
)

RECORDED = json.loads(Path(__file__).with_name("toolkit_contract.json").read_text())


@pytest.fixture
def container(tmp_path: Path) -> TrainingContainer:
    config = tmp_path / "input" / "config"
    config.mkdir(parents=True)
    for name in ("resourceconfig", "inputdataconfig"):
        (config / f"{name}.json").write_text(json.dumps(RECORDED[name]))
    return TrainingContainer(
        opt_ml=tmp_path,
        hyperparameters=RECORDED["hyperparameters"],
        environment={"TRAINING_JOB_NAME": "first-0"},
        entrypoint=(),
        arguments=(),
        cpus=2,
        hosts=("algo-1",),
        host="algo-1",
        rendezvous_port=7777,
        download=download,
        log=print,
    )


def download(uri: str, file: Path) -> None:
    raise LaunchError(f"there is no {uri} to write to {file}")


def test_options_are_the_toolkits():
    own = script_hyperparameters(parsed(RECORDED["hyperparameters"]))
    assert command_line(own) == RECORDED["command_line"]


def test_variables_are_the_toolkits(container: TrainingContainer):
    variables = toolkit_variables(container, parsed(container.hyperparameters), "train.py")
    ours = {name: value.replace(str(container.opt_ml), "/opt/ml") for name, value in variables.items()}
    assert {name: value for name, value in ours.items() if name.startswith("SM_")} == RECORDED["variables"]
    assert ours["CURRENT_HOST"] == "algo-1"
    assert ours["SAGEMAKER_REGION"] == "us-east-1"


@pytest.mark.parametrize(
    ("hyperparameters", "reason"),
    [
        ({}, "sagemaker_program must name the script"),
        ({"sagemaker_program": '"../train.py"'}, "a path in the source directory"),
        ({"sagemaker_program": '"-c"'}, "a path in the source directory"),
        ({"sagemaker_program": '"train.py"'}, "has no 'train.py' .* it holds nothing"),
        ({"sagemaker_program": '"train.py"', "sagemaker_submit_directory": '"nowhere.tar.gz"'}, "cannot be unpacked"),
        ({"sagemaker_program": '"train.py"', "sagemaker_mpi_enabled": "true"}, "sagemaker_mpi_enabled"),
    ],
)
def test_what_cannot_be_launched_says_why(
    container: TrainingContainer, tmp_path: Path, hyperparameters: dict[str, str], reason: str
):
    with pytest.raises(LaunchError, match=reason):
        launch_training(
            Environments(tmp_path / "environments"),
            TrainingContainer(**{**vars(container), "hyperparameters": hyperparameters}),
        )
