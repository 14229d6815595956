"""The Ray Serve inference image: its entry point, step by step, without the container.

The artifact's code/requirements.txt is installed, Ray is started, `serve run config.yaml` deploys the artifact's
application, and an adapter answers SageMaker's /ping and /invocations from it: ray/entrypoint.py and ray/adapter.py run
in the image's environment and do what scripts/docker/ray/sagemaker_entrypoint.sh and sagemaker_serve.py of
https://github.com/aws/deep-learning-containers do, with the same commands, but for these:

- nothing listens beyond this machine, on ports of the fleet's own: several fleets run at once beside each other;
- every step waits for what it needs instead of for five seconds, and the three commands share one interpreter;
- the object store, which no server of ours fills, is the smallest that Ray accepts; no usage statistics are sent;
- requirements are installed once, in an environment that later fleets find again.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from localcloud.containers.environments import EnvironmentBuildFailed, Environments
from localcloud.containers.images import Image, LaunchError, ServingContainer, TrainingContainer
from localcloud.containers.pytorch import launch_entrypoint
from localcloud.processes import ProcessSpec

NAME = "ray"
ENTRYPOINT = Path(__file__).parent / "ray" / "entrypoint.py"


def ray_image(environments: Environments) -> Image:
    return Image(
        training=functools.partial(launch_training, environments),
        serving=functools.partial(launch_serving, environments),
    )


def launch_training(environments: Environments, container: TrainingContainer) -> ProcessSpec:
    """Return the process of a training job's ContainerEntrypoint: the image has none for training. Raises LaunchError.

    As in a container, what it installs must go where it is private: below /opt/ml or TMPDIR.
    """
    if not container.entrypoint:
        raise LaunchError(
            "the Ray Serve image trains nothing by itself: give AlgorithmSpecification.ContainerEntrypoint"
        )
    return launch_entrypoint(environments, NAME, container)


def launch_serving(environments: Environments, container: ServingContainer) -> ProcessSpec:
    """Prepare the environment; return the entry point's process. Raises LaunchError."""
    if "CA_REPOSITORY_ARN" in container.environment:
        raise LaunchError("CA_REPOSITORY_ARN asks for packages from CodeArtifact, which is not supported here")
    model, code = container.model_folder, container.model_folder / "code"
    own = {name: value.replace("/opt/ml/model", str(model)) for name, value in container.environment.items()}
    requirements = code / "requirements.txt"
    try:
        if requirements.is_file():
            environment = environments.with_requirements(NAME, requirements, container.log, own)
        else:
            environment = environments.image(NAME, container.log)
    except EnvironmentBuildFailed as error:
        raise LaunchError(str(error)) from error
    variables = {
        "HOME": str(container.work_folder),
        "TMPDIR": str(container.work_folder),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONIOENCODING": "UTF-8",
        "SM_MODEL_DIR": str(model),
        **own,
        "PATH": environment.path(own.get("PATH", os.defpath)),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(model), str(code), own.get("PYTHONPATH")])),
    }
    argv = [str(environment.python), str(ENTRYPOINT), str(model), str(container.port)]
    return ProcessSpec(argv, variables, container.work_folder)
