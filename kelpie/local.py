"""The local cloud of a folder: the one module of the command that knows of it. All else talks to AWS's APIs.

Its state lies in `.kelpie/` of the current folder, or of the nearest folder above that has one; KELPIE_HOME names
another place.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import localcloud
from kelpie.errors import CloudUnavailable, RunFailed
from kelpie.stack import Stack
from localcloud.containers.environments import EnvironmentBuildFailed, Environments

if TYPE_CHECKING:
    import boto3

TEMPLATE = Path(__file__).parents[1] / "template.yaml"
STACK_NAME = "kelpie"
REMEDY = "run `kelpie down` and `kelpie up`"
ENDPOINT_SECONDS = 120
POLL_SECONDS = 0.5


def find_home(environment: dict[str, str], folder: Path) -> Path:
    """Return where the state of the local cloud lies, whether it exists or not."""
    if environment.get("KELPIE_HOME"):
        return Path(environment["KELPIE_HOME"]).expanduser().resolve()
    above = [candidate / ".kelpie" for candidate in (folder, *folder.parents)]
    return next((home for home in above if home.is_dir()), above[0])


def cloud() -> localcloud.LocalCloud:
    return localcloud.LocalCloud(find_home(dict(os.environ), Path.cwd()))


def up(port: int, on_progress: Callable[[str], None]) -> Stack:
    """Start the local cloud on 127.0.0.1:`port`, deploy the stack and wait until endpoints that were in service are so
    again. On any failure all is stopped again.

    Raises CloudUnavailable if it is up already, the port is in use or it does not start, RunFailed if the deployment
    fails.
    """
    local = cloud()
    try:
        local.start(port)
    except localcloud.AlreadyRunning as error:
        raise CloudUnavailable(
            f"it is up already, on port {error.port} (process {error.pid}): use it, or run `kelpie down` first"
        ) from error
    except localcloud.PortInUse as error:
        raise CloudUnavailable(
            f"port {port} is in use by another program: end that program, or choose another with `kelpie up --port`"
        ) from error
    except localcloud.StartFailed as error:
        raise CloudUnavailable(str(error)) from error
    except OSError as error:
        raise CloudUnavailable(
            f"the cloud's state cannot be kept in {local.home} ({error.strerror}): name another folder by KELPIE_HOME"
        ) from error
    except BaseException:  # interrupted: the server may run already
        local.stop()
        raise
    try:
        localcloud.deploy(local.session(), TEMPLATE, STACK_NAME, _function_platform(), on_progress)
        wait_for_endpoints(local.session(), on_progress)
        return Stack.read(local.session(), STACK_NAME, REMEDY, is_local=True)
    except (localcloud.DeploymentFailed, localcloud.PackagingFailed) as error:
        local.stop()
        raise RunFailed(f"{error}. The local cloud was stopped again") from error
    except BaseException:
        local.stop()
        raise


def wait_for_endpoints(session: boto3.Session, on_progress: Callable[[str], None]) -> None:
    """Wait until the servers of what was in service before the cloud's restart answer again, or have given up."""
    sagemaker, deadline, told = session.client("sagemaker"), time.monotonic() + ENDPOINT_SECONDS, ""
    while time.monotonic() < deadline:
        endpoints = sagemaker.list_endpoints()["Endpoints"]
        starting = ", ".join(one["EndpointName"] for one in endpoints if one["EndpointStatus"] == "SystemUpdating")
        if not starting:
            return
        if starting != told:
            on_progress(f"waiting for the endpoint {starting}")
            told = starting
        time.sleep(POLL_SECONDS)
    on_progress(f"the endpoint is not in service yet after {ENDPOINT_SECONDS} seconds: `kelpie status` tells of it")


def _function_platform() -> dict[str, str]:
    """The template's parameters for functions that this machine's own interpreter runs."""
    architecture = "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64"
    return {
        "FunctionRuntime": f"python{sys.version_info.major}.{sys.version_info.minor}",
        "FunctionArchitecture": architecture,
    }


def down() -> bool:
    """Stop the local cloud and all that it started, and clear up after a crash. Return whether one was running."""
    local = cloud()
    was_running = local.running()
    local.stop()
    return was_running


def require_up() -> localcloud.LocalCloud:
    """Return the handle on the running cloud. Raises CloudUnavailable if none runs, or if it died."""
    local = cloud()
    if local.running():
        return local
    if local.crashed():
        raise CloudUnavailable(f"the local cloud of {local.home} has died: start it again with `kelpie up`")
    raise CloudUnavailable(f"no local cloud is up in {local.home}: start it with `kelpie up`")


def connect() -> Stack:
    """Return the stack on the running cloud. Raises CloudUnavailable."""
    return Stack.read(require_up().session(), STACK_NAME, REMEDY, is_local=True)


def environments_built() -> dict[str, bool]:
    """Return which of the environments that jobs and the endpoint run in are there, by the image's name."""
    environments, root = Environments(), TEMPLATE.parent
    requirements = {"pytorch": root / "training_code", "ray": root / "inference_code"}
    return {image: environments.built(image, folder / "requirements.txt") for image, folder in requirements.items()}


def training_python(on_progress: Callable[[str], None]) -> Path:
    """Return the interpreter that training jobs run with, its environment built if need be. Raises RunFailed."""
    environments, requirements = Environments(), TEMPLATE.parent / "training_code" / "requirements.txt"
    if not environments.built("pytorch", requirements):
        on_progress("the environment of training jobs is not there: it is installed now, once, some 6 GB with PyTorch")
    try:
        return environments.with_requirements("pytorch", requirements, on_progress).python
    except EnvironmentBuildFailed as error:
        raise RunFailed(str(error)) from error


def environments_folder() -> Path:
    return Environments().root
