"""A photograph of 12 megapixels, from JPEG to tensor: as the server does it, and by Pillow at full size, by turns.

    photograph.py ARTIFACT IMAGE

IMAGE is scaled up to 4000 x 3000 and grained as a sensor would. Prints milliseconds and their ratio.
"""

from __future__ import annotations

import io
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (4000, 3000)
TURNS = 15


def main(artifact: Path, image: Path) -> None:
    sys.path.insert(0, str(artifact / "code"))
    import inference
    from decoding import preprocess

    assert inference
    preprocessing = json.loads((artifact / "model.json").read_bytes())["preprocessing"]
    content = large(image)

    def plain() -> np.ndarray:
        picture = Image.open(io.BytesIO(content)).convert("RGB")
        short, size = preprocessing["resize_px"], preprocessing["image_size_px"]
        scale = short / min(picture.size)
        picture = picture.resize(
            (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BILINEAR
        )
        left, top = (picture.width - size) // 2, (picture.height - size) // 2
        pixels = np.asarray(picture.crop((left, top, left + size, top + size)), np.float32) / 255
        return ((pixels - preprocessing["mean"]) / preprocessing["std"]).astype(np.float32).transpose(2, 0, 1)

    seconds: dict[str, list[float]] = {"pillow": [], "ours": []}
    for _ in range(TURNS):
        for name, work in (("pillow", plain), ("ours", lambda: preprocess(content, preprocessing))):
            begun = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - begun)
    medians = {f"{name}_ms": 1000 * statistics.median(taken) for name, taken in seconds.items()}
    print(json.dumps({**medians, "bytes": len(content), "ratio": medians["pillow_ms"] / medians["ours_ms"]}))


def large(image: Path) -> bytes:
    picture = Image.open(image).convert("RGB").resize(SIZE, Image.Resampling.BICUBIC)
    grain = np.random.default_rng(0).normal(0, 4, (*SIZE[::-1], 1))
    file = io.BytesIO()
    Image.fromarray((np.asarray(picture) + grain).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
