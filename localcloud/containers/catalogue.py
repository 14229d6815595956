"""The images that the local cloud knows."""

from localcloud.containers.environments import Environments
from localcloud.containers.images import Images
from localcloud.containers.pytorch import pytorch_image
from localcloud.containers.ray import ray_image
from localcloud.containers.tiny import tiny_image


def known_images() -> Images:
    environments = Environments()
    return Images({"pytorch": pytorch_image(environments), "ray": ray_image(environments), "tiny": tiny_image()})
