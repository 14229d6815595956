"""The logits that an artifact's own code gives, in the environment that this runs in.

logits.py ARTIFACT BATCH OUT.npy IMAGE...
"""

import sys
from pathlib import Path

import numpy as np


def main(artifact: Path, batch: int, out: str, images: list[str]) -> None:
    sys.path.insert(0, str(artifact / "code"))
    import inference

    model = inference.model_fn(artifact)
    contents = [Path(image).read_bytes() for image in images]
    batches = [contents[start : start + batch] for start in range(0, len(contents), batch)]
    np.save(out, np.concatenate([inference.predict_logits(model, batch) for batch in batches]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
