"""One pass over a data set with frozen features, against a plain loop: Pillow, float32, batches of 32.

    python -m benchmarks.features_pass --dataset photos --weights tf_efficientnet_lite0.safetensors

Prints one JSON document: images a second of both, and their ratio.
"""

import contextlib
import json
import sys

import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmarks.photographs import dataset_of, network_of, options, seconds_of

BATCH = 32


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--images", type=int, default=320)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    root = dataset_of(given)
    paths = sorted((root / "train").rglob("*.jpg"))[: given.images]

    from features import compute_features
    from network import find_head, preprocessing_of, replace_classifier
    from precision import inference_dtype

    network = network_of(given)
    replace_classifier(network, find_head(network, given.architecture), nn.Identity())
    network.eval()
    preprocessing = preprocessing_of(given.architecture, 224, "pad")
    entries = [{"path": path.relative_to(root).as_posix(), "split": "train", "class_index": 0} for path in paths]
    others = [{**entry, "split": split} for split in ("valid", "test") for entry in entries[:1]]
    manifest = {"images": entries + others}
    device = torch.device("cpu")

    def plain() -> None:
        with torch.inference_mode():
            for start in range(0, len(paths), BATCH):
                squares = [Image.open(path).convert("RGB").resize((224, 224)) for path in paths[start : start + BATCH]]
                pixels = torch.from_numpy(np.stack([np.array(square) for square in squares]))
                network(pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous())

    baseline = seconds_of(plain)
    with contextlib.redirect_stdout(sys.stderr):  # a job prints how far it is
        ours = seconds_of(
            lambda: compute_features(network, root, manifest, preprocessing, inference_dtype(device), device)
        )
    rates = {"plain": len(paths) / baseline, "ours": (len(paths) + len(others)) / ours}
    print(json.dumps({"images": len(paths), "images_per_second": rates, "ratio": rates["ours"] / rates["plain"]}))


if __name__ == "__main__":
    main()
