"""What a training image looks like each time it is seen: an image's own random numbers decide, and nothing else.

So a training is the same whatever the number of threads and processes, and goes on the same when it is resumed.

gentle, for networks from scratch, leaves every class what it is: a slightly different point of view and light. cut, for
pretrained ones, cuts out a part of 50 to 100 % of the picture (Szegedy et al. 2015, Going Deeper with Convolutions).
Neither mirrors by itself: a mirrored 2, a left-hand glove or a text is another thing; train.py finds out whether the
classes of a data set survive it. docs/experiments.md says what TrivialAugment came to.
"""

from __future__ import annotations

import math
import random

import numpy as np
from lean_torchvision import import_torchvision
from PIL import Image

GENTLE_ANGLE = 10.0  # degrees
GENTLE_SCALES = (0.85, 1.15)
GENTLE_SHIFT = 0.1  # of the side
GENTLE_LIGHT = 0.2
CROPPED_AREAS = (0.5, 1.0)
CROPPED_RATIOS = (3 / 4, 4 / 3)
TRIES = 10
Colour = tuple[int, int, int]


def chance_of(seed: int, epoch: int, index: int) -> random.Random:
    """Return the random numbers of one training image in one epoch."""
    return random.Random(f"{seed} {epoch} {index}")


def gentle(picture: Image.Image, size_px: int, chance: random.Random, fill: Colour) -> Image.Image:
    """Turn, scale, shift and light a square picture a little; `fill` is what comes in from beyond its edge."""
    # Not transforms.v2, which has the same kernels for Pillow's pictures, and imports PyTorch's compiler.
    functional = import_torchvision().transforms.functional
    shift = [round(chance.uniform(-GENTLE_SHIFT, GENTLE_SHIFT) * size_px) for _ in range(2)]
    angle, scale = chance.uniform(-GENTLE_ANGLE, GENTLE_ANGLE), chance.uniform(*GENTLE_SCALES)
    moved = functional.affine(
        picture.resize((size_px, size_px), Image.Resampling.BILINEAR),
        angle=angle,
        translate=shift,
        scale=scale,
        shear=[0.0, 0.0],
        interpolation=functional.InterpolationMode.BILINEAR,
        fill=list(fill),
    )
    lit = functional.adjust_brightness(moved, chance.uniform(1 - GENTLE_LIGHT, 1 + GENTLE_LIGHT))
    return functional.adjust_contrast(lit, chance.uniform(1 - GENTLE_LIGHT, 1 + GENTLE_LIGHT))


def cut(picture: Image.Image, size_px: int, chance: random.Random) -> Image.Image:
    """Cut out a part of the picture."""
    box = crop_box(picture.width, picture.height, chance)
    return picture.resize((size_px, size_px), Image.Resampling.BILINEAR, box=box)


def crop_box(width: int, height: int, chance: random.Random) -> tuple[int, int, int, int]:
    """Choose a part of a picture: left, top, right, bottom; the middle, if nothing suits."""
    for _ in range(TRIES):
        area = width * height * chance.uniform(*CROPPED_AREAS)
        ratio = math.exp(chance.uniform(*map(math.log, CROPPED_RATIOS)))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            left, top = chance.randint(0, width - wide), chance.randint(0, height - high)
            return left, top, left + wide, top + high
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def mirrored(pixels: np.ndarray) -> np.ndarray:
    """Return pictures, (..., H, W, 3), as a mirror shows them."""
    return pixels[..., ::-1, :]
