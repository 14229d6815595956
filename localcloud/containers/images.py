"""Which launcher stands for a container image: found by the name of the image's repository, whatever registry and tag.

`763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch:2.14-cpu-amzn2023-sagemaker` is `pytorch`. Versions are not told
apart: there is one environment for each image, and docs/local-cloud.md says what it holds.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from localcloud.processes import ProcessSpec

LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
"""The network interface by which instances that are processes of one machine reach each other."""
HOSTS_FOLDER = Path(__file__).with_name("hosts")


class UnknownImage(Exception):
    """No launcher stands for this image, or not for this use of it. The message lists those that there are."""


class LaunchError(Exception):
    """The container could not be started; the message is the reason that the job or endpoint fails with."""


@dataclass(frozen=True)
class TrainingContainer:
    """What SageMaker gives to a training container. Values that begin with /opt/ml are already paths below `opt_ml`."""

    opt_ml: Path
    """The job's own /opt/ml: input/config and input/data/<channel> are filled, model/ and output/data/ exist."""
    hyperparameters: Mapping[str, str]
    environment: Mapping[str, str]
    """The whole environment that SageMaker sets (nothing of the host's): the job's, the role's credentials, PATH,
    HOME, TMPDIR.
    """
    entrypoint: tuple[str, ...]
    """ContainerEntrypoint and ContainerArguments of the request; empty for the image's own."""
    arguments: tuple[str, ...]
    cpus: int
    """How many of the machine's cores are this container's share."""
    hosts: tuple[str, ...]
    """The names of the job's instances, and which of them this is."""
    host: str
    rendezvous_port: int
    """A port that is free, the same for all instances of the job: in the place of the fixed one that a toolkit uses on
    instances that share nothing.
    """
    download: Callable[[str, Path], None]
    """(s3://bucket/key, file): fetch an object under the job's role. Raises LaunchError."""
    log: Callable[[str], None]
    """Write a line to the job's log."""


def host_variables(container: TrainingContainer, python_path: Sequence[str | Path] = ()) -> dict[str, str]:
    """Return what a process of a job needs to find the other instances, and PYTHONPATH, if either has something."""
    if len(container.hosts) == 1:
        return {"PYTHONPATH": _joined(python_path)} if python_path else {}
    return {"LOCALCLOUD_HOSTS": ",".join(container.hosts), "PYTHONPATH": _joined([*python_path, HOSTS_FOLDER])}


def _joined(folders: Sequence[str | Path]) -> str:
    return os.pathsep.join(map(str, folders))


@dataclass(frozen=True)
class ServingContainer:
    """What SageMaker gives to a serving container."""

    model_folder: Path
    """/opt/ml/model: model.tar.gz, unpacked."""
    port: int
    """The server must answer GET /ping and POST /invocations on 127.0.0.1 at this port."""
    work_folder: Path
    """An empty folder of the server's own for everything that it writes."""
    environment: Mapping[str, str]
    """The whole environment that SageMaker sets: PATH and the like of the host, the role's credentials, the model's
    own, HOME and TMPDIR.
    """
    log: Callable[[str], None]


@dataclass(frozen=True)
class Image:
    """`training` and `serving` prepare a container and return the process to start. They raise LaunchError."""

    training: Callable[[TrainingContainer], ProcessSpec] | None = None
    serving: Callable[[ServingContainer], ProcessSpec] | None = None


class Images:
    """The images that are known, by repository name."""

    def __init__(self, images: Mapping[str, Image]):
        self._images = dict(images)

    def training(self, uri: str) -> Callable[[TrainingContainer], ProcessSpec]:
        """Return the training launcher for an image URI. Raises UnknownImage."""
        image = self._images.get(repository(uri))
        if image is None or image.training is None:
            raise self._unknown(uri, "training", [name for name, known in self._images.items() if known.training])
        return image.training

    def serving(self, uri: str) -> Callable[[ServingContainer], ProcessSpec]:
        """Return the serving launcher for an image URI. Raises UnknownImage."""
        image = self._images.get(repository(uri))
        if image is None or image.serving is None:
            raise self._unknown(uri, "serving", [name for name, known in self._images.items() if known.serving])
        return image.serving

    def _unknown(self, uri: str, use: str, known: list[str]) -> UnknownImage:
        return UnknownImage(
            f"No launcher for {use} with the image {uri!r} (repository {repository(uri)!r}). "
            f"The local cloud knows these repositories for {use}: {', '.join(sorted(known)) or 'none'}"
        )


def repository(uri: str) -> str:
    """Return the repository's last name of an image URI: `pytorch` of `registry:5000/team/pytorch:2.14@sha256:...`."""
    return uri.partition("@")[0].rpartition("/")[2].partition(":")[0]
