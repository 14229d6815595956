"""What a training image looks like each time it is seen: an image's own random numbers decide, and nothing else.

So a training is the same whatever the number of threads and processes, and goes on the same when it is resumed.

gentle, for networks from scratch, leaves every class what it is: a slightly different point of view and light. strong,
for pretrained ones, cuts out a part of 40 to 100 % of the picture (Szegedy et al. 2015, Going Deeper with Convolutions)
and changes it in one of fourteen ways (Mueller and Hutter 2021, TrivialAugment). Neither mirrors by itself: a mirrored
2, a left-hand glove or a text is another thing; train.py finds out whether the classes of a data set survive it.
"""

from __future__ import annotations

import math
import random

import numpy as np
from PIL import Image

GENTLE_ANGLE = 10.0  # degrees
GENTLE_SCALES = (0.85, 1.15)
GENTLE_SHIFT = 0.1  # of the side
GENTLE_LIGHT = 0.2
CROPPED_AREAS = (0.4, 1.0)
CROPPED_RATIOS = (3 / 4, 4 / 3)
TRIES = 10
STRENGTHS = 30
WIDEST = {  # TrivialAugment's wide ranges, of either sign where that makes sense
    "identity": 0.0,
    "shear_x": 0.99,
    "shear_y": 0.99,
    "translate_x": 32.0,  # of 224 pixels
    "translate_y": 32.0,
    "rotate": 135.0,
    "brightness": 0.99,
    "color": 0.99,
    "contrast": 0.99,
    "sharpness": 0.99,
    "posterize": 6.0,
    "solarize": 255.0,
    "autocontrast": 0.0,
    "equalize": 0.0,
}
USUAL_SIDE = 224
Colour = tuple[int, int, int]


def chance_of(seed: int, epoch: int, index: int) -> random.Random:
    """Return the random numbers of one training image in one epoch."""
    return random.Random(f"{seed} {epoch} {index}")


def gentle(picture: Image.Image, size_px: int, chance: random.Random, fill: Colour) -> Image.Image:
    """Turn, scale, shift and light a square picture a little; `fill` is what comes in from beyond its edge."""
    from torchvision.transforms.v2 import functional

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


def strong(picture: Image.Image, size_px: int, chance: random.Random, fill: Colour) -> Image.Image:
    """Cut out a part of the picture, and change it in one of TrivialAugment's ways."""
    box = crop_box(picture.width, picture.height, chance)
    square = picture.resize((size_px, size_px), Image.Resampling.BILINEAR, box=box)
    name = chance.choice(sorted(WIDEST))
    strength = chance.randrange(STRENGTHS + 1) / STRENGTHS * WIDEST[name]
    return change(square, name, strength, chance.choice((-1, 1)), fill)


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


def change(square: Image.Image, name: str, strength: float, sign: int, fill: Colour) -> Image.Image:
    """Apply one of TrivialAugment's changes."""
    from torchvision.transforms.v2 import functional

    signed = sign * strength
    if name in ("shear_x", "shear_y", "translate_x", "translate_y", "rotate"):
        shift = round(signed * square.width / USUAL_SIDE)
        shear = math.degrees(math.atan(signed))
        return functional.affine(
            square,
            angle=signed if name == "rotate" else 0.0,
            translate=[shift if name == "translate_x" else 0, shift if name == "translate_y" else 0],
            scale=1.0,
            shear=[shear if name == "shear_x" else 0.0, shear if name == "shear_y" else 0.0],
            fill=list(fill),
        )
    lights = {
        "brightness": functional.adjust_brightness,
        "color": functional.adjust_saturation,
        "contrast": functional.adjust_contrast,
        "sharpness": functional.adjust_sharpness,
    }
    if name in lights:
        return lights[name](square, 1.0 + signed)
    if name == "posterize":
        return functional.posterize(square, 8 - round(strength))
    if name == "solarize":
        return functional.solarize(square, 255 - strength)
    if name == "autocontrast":
        return functional.autocontrast(square)
    return functional.equalize(square) if name == "equalize" else square


def mirrored(pixels: np.ndarray) -> np.ndarray:
    """Return pictures, (..., H, W, 3), as a mirror shows them."""
    return pixels[..., ::-1, :]
