"""The PyTorch training image: what SageMaker's training toolkit does inside the container, without the container.

The source archive is unpacked to /opt/ml/code, its requirements.txt is installed, the SM_* variables are set, and the
script runs there with the hyperparameters as its options, all as sagemaker-training 5.1 does it (environment.py,
mapping.py and entry_point.py of https://github.com/aws/sagemaker-training-toolkit), but for these:

- the script's own exit code is the container's (the toolkit makes it 1) and its own `output/failure` stays (the
toolkit writes its own over it); - requirements are installed once, in an environment that later jobs find again; -
OMP_NUM_THREADS is set to the job's share of this machine's cores, unless the job's Environment sets it: on AWS a trial
has its instance for itself, here parallel trials would each start a thread for every core and slow each other down.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from localcloud.containers.environments import Environment, EnvironmentBuildFailed, Environments
from localcloud.containers.images import LOOPBACK, Image, LaunchError, TrainingContainer, host_variables
from localcloud.processes import ProcessSpec

NAME = "pytorch"
MASTER_ADDRESS = "127.0.0.1"  # the first instance's, as that of all
FRAMEWORK_MODULE = "sagemaker_pytorch_container.training:main"
DEFAULT_LOG_LEVEL = 20
# Hyperparameters of the toolkit itself: never the script's. The last one is set by tuning jobs.
TOOLKIT_HYPERPARAMETERS = frozenset(
    {
        "sagemaker_program",
        "sagemaker_submit_directory",
        "sagemaker_enable_cloudwatch_metrics",
        "sagemaker_region",
        "sagemaker_container_log_level",
        "sagemaker_job_name",
        "default_user_module_name",
        "sagemaker_s3_output",
        "_tuning_objective_metric",
    }
)
TORCH_DISTRIBUTED = "sagemaker_torch_distributed_enabled"
REFUSED_LAUNCHERS = (
    "sagemaker_mpi_enabled",
    "sagemaker_parameter_server_enabled",
    "sagemaker_distributed_dataparallel_enabled",
    "sagemaker_pytorch_ddp_enabled",
    "sagemaker_pytorch_xla_multi_worker_enabled",
    "sagemaker_multi_worker_mirrored_strategy_enabled",
)
ENTRY_POINT = re.compile(r"[A-Za-z0-9._][A-Za-z0-9._+-]*(/[A-Za-z0-9._+-]+)*")


def pytorch_image(environments: Environments) -> Image:
    return Image(training=functools.partial(launch_training, environments))


def launch_training(environments: Environments, container: TrainingContainer) -> ProcessSpec:
    """Prepare the code and its environment; return the script's process. Raises LaunchError."""
    if container.entrypoint or container.arguments:
        return launch_entrypoint(environments, NAME, container)
    hyperparameters = parsed(container.hyperparameters)
    for name in REFUSED_LAUNCHERS:
        if hyperparameters.get(name):
            raise LaunchError(f"the hyperparameter {name} asks for what is not here; use {TORCH_DISTRIBUTED}")
    program = hyperparameters.get("sagemaker_program", container.environment.get("SAGEMAKER_PROGRAM"))
    if program is None:
        raise LaunchError("the hyperparameter sagemaker_program must name the script to run, as a JSON string")
    if not isinstance(program, str) or not ENTRY_POINT.fullmatch(program) or {".", ".."} & set(program.split("/")):
        raise LaunchError(
            f'sagemaker_program is {program!r}: it must be a path in the source directory, like "train.py"'
        )
    code = container.opt_ml / "code"
    _unpack_source(container, hyperparameters.get("sagemaker_submit_directory", str(code)), code)
    if not (code / program).is_file():
        found = ", ".join(sorted(path.name for path in code.iterdir())) or "nothing"
        raise LaunchError(f"the source directory has no {program!r} (sagemaker_program); it holds {found}")
    environment = _with_requirements(environments, container, code / "requirements.txt")
    options = command_line(script_hyperparameters(hyperparameters))
    if hyperparameters.get(TORCH_DISTRIBUTED):
        if not program.endswith(".py"):
            raise LaunchError(f"{TORCH_DISTRIBUTED} needs a Python script, not {program!r}")
        argv = [str(environment.python), *torchrun(container), program, *options]
    elif program.endswith(".py"):
        argv = [str(environment.python), "--", program, *options]
    else:
        (code / program).chmod(0o755)
        argv = ["/bin/sh", "-c", f"./{program} {shlex.join(options)}"]
    variables = {
        **process_variables(environment, container),
        **toolkit_variables(container, hyperparameters, program),
        **host_variables(container, [code]),
    }
    return ProcessSpec(argv, variables, code)


def launch_entrypoint(environments: Environments, image: str, container: TrainingContainer) -> ProcessSpec:
    """Return the process of a ContainerEntrypoint in an image's environment. Raises LaunchError."""
    if not container.entrypoint:
        raise LaunchError("ContainerArguments need a ContainerEntrypoint")
    try:
        environment = environments.image(image, container.log)
    except EnvironmentBuildFailed as error:
        raise LaunchError(str(error)) from error
    argv = [*container.entrypoint, *container.arguments]
    return ProcessSpec(argv, process_variables(environment, container), container.opt_ml)


def torchrun(container: TrainingContainer) -> list[str]:
    """Return the arguments with which the toolkit's torch_distributed launcher has Python start the script: a process
    for each GPU of each instance, or one on each.
    """
    return [
        "-m",
        "torch.distributed.run",
        f"--nnodes={len(container.hosts)}",
        f"--nproc_per_node={_num_gpus() or 1}",
        f"--master_addr={MASTER_ADDRESS}",
        f"--master_port={container.rendezvous_port}",
        f"--node_rank={container.hosts.index(container.host)}",
    ]


def parsed(hyperparameters: Mapping[str, str]) -> dict[str, Any]:
    """Return the hyperparameters as the toolkit reads them: JSON where they are JSON, else the string itself."""
    values: dict[str, Any] = {}
    for name, value in hyperparameters.items():
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
    return values


def script_hyperparameters(hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return those that are the script's own."""
    return {
        name: value
        for name, value in hyperparameters.items()
        if name not in TOOLKIT_HYPERPARAMETERS and not name.startswith("sagemaker_")
    }


def command_line(hyperparameters: Mapping[str, Any]) -> list[str]:
    """Return `--name value` for each, sorted by name; a mapping is `key=value,...`, and true is `True`, as Python
    prints it.
    """
    options = []
    for name, value in sorted(hyperparameters.items()):
        options.append(f"--{name}" if len(name) > 1 else f"-{name}")
        if isinstance(value, Mapping):
            options.append(",".join(f"{key}={item}" for key, item in sorted(value.items())))
        else:
            options.append("" if value is None else str(value))
    return options


def toolkit_variables(container: TrainingContainer, hyperparameters: Mapping[str, Any], program: str) -> dict[str, str]:
    """Return SM_* and the few other variables that the toolkit sets."""
    opt_ml = container.opt_ml
    config = opt_ml / "input" / "config"
    resources = json.loads((config / "resourceconfig.json").read_text())
    inputs = json.loads((config / "inputdataconfig.json").read_text())
    own = script_hyperparameters(hyperparameters)
    framework = {
        name: value
        for name, value in hyperparameters.items()
        if name.startswith("sagemaker_") and name not in TOOLKIT_HYPERPARAMETERS
    }
    channels = {name: str(opt_ml / "input" / "data" / name) for name in inputs}
    groups = {group["instance_group_name"]: group for group in resources["instance_groups"]}
    shared = {
        "channel_input_dirs": channels,
        "current_host": resources["current_host"],
        "current_instance_group": resources["current_group_name"],
        "current_instance_group_hosts": groups[resources["current_group_name"]]["hosts"],
        "current_instance_type": resources["current_instance_type"],
        "distribution_instance_groups": [],
        "framework_module": FRAMEWORK_MODULE,
        "hosts": resources["hosts"],
        "input_config_dir": str(config),
        "input_data_config": inputs,
        "input_dir": str(opt_ml / "input"),
        "instance_groups": list(groups),
        "instance_groups_dict": groups,
        "is_hetero": False,
        "log_level": hyperparameters.get("sagemaker_container_log_level", DEFAULT_LOG_LEVEL),
        "model_dir": str(opt_ml / "model"),
        "module_dir": str(hyperparameters.get("sagemaker_submit_directory", opt_ml / "code")),
        "module_name": program.removesuffix(".py"),
        "network_interface_name": resources["network_interface_name"],
        "num_cpus": container.cpus,
        "num_gpus": _num_gpus(),
        "num_neurons": 0,
        "output_data_dir": str(opt_ml / "output" / "data"),
        "output_dir": str(opt_ml / "output"),
        "output_intermediate_dir": str(opt_ml / "output" / "intermediate"),
        "resource_config": resources,
        "user_entry_point": program,
    }
    training_env = {
        **shared,
        "additional_framework_parameters": framework,
        "distribution_hosts": [],
        "hyperparameters": own,
        "is_master": resources["current_host"] == resources["hosts"][0],
        "is_modelparallel_enabled": None,
        "is_smddpmprun_installed": False,
        "is_smddprun_installed": False,
        "job_name": container.environment.get("TRAINING_JOB_NAME"),
        "master_hostname": resources["hosts"][0],
        "topology": [],
    }
    variables = {
        **{name: value for name, value in shared.items() if name != "channel_input_dirs"},
        "channels": sorted(channels),
        "framework_params": framework,
        "hps": own,
        "training_env": training_env,
        "user_args": command_line(own),
        **{f"channel_{name}": folder for name, folder in channels.items()},
        **{f"hp_{name}": value for name, value in own.items()},
    }
    return {
        "CURRENT_HOST": resources["current_host"],
        "MASTER_ADDR": MASTER_ADDRESS,
        "MASTER_PORT": str(container.rendezvous_port),
        "GLOO_SOCKET_IFNAME": LOOPBACK,
        "SAGEMAKER_JOB_NAME": str(hyperparameters.get("sagemaker_job_name", "")),
        "SAGEMAKER_REGION": str(hyperparameters.get("sagemaker_region", container.environment.get("AWS_REGION", ""))),
        "SAGEMAKER_TRAINING_MODULE": FRAMEWORK_MODULE,
        **{f"SM_{name.upper()}": _variable(value) for name, value in variables.items()},
    }


DEBUGGER_FILES = {
    "SMDEBUG_CONFIG_FILE_PATH": "debughookconfig.json",
    "TENSORBOARD_CONFIG_FILE_PATH": "tensorboardoutputconfig.json",
    "SMPROFILER_CONFIG_PATH": "profilerconfig.json",
}
"""Variables by which smdebug finds its files where /opt/ml is elsewhere (its config_constants.py)."""


def process_variables(environment: Environment, container: TrainingContainer) -> dict[str, str]:
    """Return what any process of a container of this kind has in its environment."""
    config = container.opt_ml / "input" / "config"
    return {
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONIOENCODING": "UTF-8",
        **{name: str(path) for name, file in DEBUGGER_FILES.items() if (path := config / file).is_file()},
        **container.environment,
        "PATH": environment.path(container.environment.get("PATH", os.defpath)),
    }


def _unpack_source(container: TrainingContainer, source: object, code: Path) -> None:
    """Put the source directory into `code`, from an archive in S3, an archive here, or a folder."""
    if not isinstance(source, str):
        raise LaunchError(f"sagemaker_submit_directory must be a JSON string, not {source!r}")
    if source == str(code):
        code.mkdir(exist_ok=True)
        return
    path = Path(source)
    if path.is_relative_to("/opt/ml"):  # as a JSON string, which is no path to whoever filled in the others
        path = container.opt_ml / path.relative_to("/opt/ml")
    if source.startswith("s3://"):
        path = container.opt_ml / "source" / PurePosixPath(source).name
        container.download(source, path)
    if path.is_dir():
        shutil.copytree(path, code)
        return
    try:
        with tarfile.open(path) as tar:
            tar.extractall(code, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise LaunchError(f"sagemaker_submit_directory {source} cannot be unpacked: {error}") from error


def _with_requirements(environments: Environments, container: TrainingContainer, requirements: Path) -> Environment:
    if (requirements.parent / "setup.py").exists():
        raise LaunchError("a source directory with a setup.py is not supported here; use requirements.txt")
    try:
        if requirements.is_file():
            return environments.with_requirements(NAME, requirements, container.log, container.environment)
        return environments.image(NAME, container.log)
    except EnvironmentBuildFailed as error:
        raise LaunchError(str(error)) from error


def _variable(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


@functools.cache
def _num_gpus() -> int:
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())
