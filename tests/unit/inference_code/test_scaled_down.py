"""Photographs above the endpoint's limit keep their labels when the inbox scales them down.

On pictures that are generated; and, given KELPIE_TEST_PHOTOGRAPHS, a folder with JPEG files somewhere below it, and
KELPIE_TEST_ARTIFACT, an unpacked model.tar.gz, on real ones, of which small ones are enlarged first.
"""

import io
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[3] / "functions" / "classify_image"))
from photograph import body_of

sys.path.pop(0)

EQUAL = 0.995
LARGE_PX = 1600


def test_labels_stay_when_large_pictures_are_scaled_down(inference, model, tiny):
    """Each is told by which of six pictures its logits are nearest to: random weights know no classes."""
    known = inference.predict_logits(model, [tiny.encode(tiny.picture(640, 480, seed=seed)) for seed in range(6)])

    def label(image):
        distances = np.linalg.norm(known - inference.predict_logits(model, [image]), axis=1)
        return distances.argmin()

    pictures = [grained(tiny.picture(640, 480, seed=number % 6), number) for number in range(24)]
    before, after = labels(label, pictures, 2 * model.description["preprocessing"]["image_size_px"])
    assert before == after == [number % 6 for number in range(24)]


if "KELPIE_TEST_PHOTOGRAPHS" in os.environ:

    def test_labels_of_real_photographs_stay(inference):
        model = inference.model_fn(os.environ["KELPIE_TEST_ARTIFACT"])
        files = sorted(Path(os.environ["KELPIE_TEST_PHOTOGRAPHS"]).rglob("*.jpg"))
        short_side_px = 2 * model.description["preprocessing"]["image_size_px"]
        before, after = labels(
            lambda image: inference.predict_logits(model, [image])[0].argmax(), map(enlarged, files), short_side_px
        )
        assert np.mean(np.equal(before, after)) >= EQUAL


def labels(label, pictures, short_side_px):
    """The label of each picture as a JPEG just above a limit, and as the inbox then sends it."""
    before, after = [], []
    for picture in pictures:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=95)
        large = file.getvalue()
        sent, _content_type = body_of(large, "image/jpeg", len(large) - 1, short_side_px)
        assert short_side_px <= min(Image.open(io.BytesIO(sent)).size) < min(picture.size)
        before.append(label(large))
        after.append(label(sent))
    return before, after


def grained(picture, seed):
    pixels = np.asarray(picture, dtype=np.int16)
    grain = np.random.default_rng(seed).integers(-20, 21, pixels.shape)
    return Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))


def enlarged(file):
    picture = Image.open(file).convert("RGB")
    factor = max(1, LARGE_PX / min(picture.size))
    return picture.resize((round(picture.width * factor), round(picture.height * factor)), Image.Resampling.LANCZOS)
