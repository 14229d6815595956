"""Which container image each instance type takes: one for CPUs or one for GPUs. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from run_input import InvalidInput

# https://docs.aws.amazon.com/sagemaker/latest/dg/notebooks-available-instance-types.html: g and p have GPUs of NVIDIA.
GPU_INSTANCE = re.compile(r"ml\.[gp]\d")
# Inferentia and Trainium run only what was compiled for them.
NEURON_INSTANCE = re.compile(r"ml\.(inf|trn)\d")
ARM_INSTANCE = re.compile(r"ml\.[a-z]+\d+g[a-z]*\.")
# arch_type of .github/config/image/ray/sagemaker-cpu.yml in https://github.com/aws/deep-learning-containers
X86_IMAGE = re.compile(r".*/ray:serve-ml-sagemaker-cpu-")
GPU_IMAGE = re.compile(r".*[:-](gpu|cuda|cu\d+)-")
CPU_IMAGE = re.compile(r".*[:-]cpu-")

SERVING = ("optimize", "endpoint")
ON_CPUS = ("optimize", "evaluate", "endpoint")
"""Steps that run inference_code, which computes on CPUs: a GPU would be paid for and idle."""


@dataclass(frozen=True)
class Images:
    """The images of one purpose. `parameter`: the template's, by which both are replaced by one of the user's own."""

    cpu: str
    gpu: str | None
    parameter: str


def chosen(instances: Mapping[str, str], training: Images, serving: Images) -> dict[str, str]:
    """Return the image of each step. instances: the instance type of each step, `endpoint` among them.

    Raises InvalidInput for an instance type that neither image runs on, and for an image of the user's own whose tag
    says that it is not for the instance: it would compute on the CPU of a GPU instance without a word.
    """
    return {step: _image(step, kind, serving if step in SERVING else training) for step, kind in instances.items()}


def _image(step: str, instance_type: str, images: Images) -> str:
    if NEURON_INSTANCE.match(instance_type):
        raise InvalidInput(
            f"instances.{step} {instance_type!r} runs only what was compiled for Inferentia or Trainium: "
            "choose an instance type with CPUs or NVIDIA GPUs"
        )
    needs_gpu = bool(GPU_INSTANCE.match(instance_type))
    if needs_gpu and step in ON_CPUS:
        raise InvalidInput(
            f"instances.{step} {instance_type!r} has a GPU, but what serves and evaluates a model computes on CPUs: "
            "choose an instance type without a GPU"
        )
    image = images.gpu if needs_gpu and images.gpu else images.cpu
    unfit = (CPU_IMAGE if needs_gpu else GPU_IMAGE).match(image)
    if unfit:
        has, is_for = ("a GPU", "CPUs") if needs_gpu else ("no GPU", "GPUs")
        raise InvalidInput(
            f"instances.{step} {instance_type!r} has {has}, but the image {image} is for {is_for}: choose another "
            f"instance type, or deploy the stack with an image for it as {images.parameter} (empty for AWS's own)"
        )
    if ARM_INSTANCE.match(instance_type) and X86_IMAGE.match(image):
        raise InvalidInput(
            f"instances.{step} {instance_type!r} has an ARM processor, but the image {image} is for x86-64: choose "
            f"another instance type, or deploy the stack with an image for it as {images.parameter}"
        )
    return image
