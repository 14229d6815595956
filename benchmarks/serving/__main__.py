"""What an answer of the endpoint costs, against SageMaker's stock way in the same run; the rows of docs/serving.md.

    python -m benchmarks.serving                                             # ResNet-50, random weights: 20 minutes
    python -m benchmarks.serving --dataset photos --weights tf_efficientnet_lite0.safetensors   # EfficientNet-Lite0 too
    python -m benchmarks.serving --rows core_ms,tail --seconds 5 --keep kept  # some of it; kept/ spares training again

JPEG in, JSON out, over HTTP, from load.py's process, which is left out of all processor times. EfficientNet-Lite0
needs its real weights and photographs (or KELPIE_TEST_WEIGHTS and KELPIE_TEST_DATASET, the folder with train/, valid/
and test/); without them it is left out, and said to be. Prints one JSON document; progress goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.serving import rows
from benchmarks.serving.models import Models
from benchmarks.serving.servers import Client, ours

RESNET50, LITE0 = "resnet50", "timm:tf_efficientnet_lite0"
ROWS = ("core_ms", "beyond", "tail", "photograph", "accuracy", "startup", "soak")
ALONE = ("photograph", "accuracy")  # rows that need no server
LEAST_SHARE = 3  # of the baseline's processor time
MOST_IMAGES = 40  # that are asked about, in turn


def main() -> None:
    given = options()
    say = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
    document: dict[str, Any] = {"cores": os.cpu_count(), "load": os.getloadavg()[0], "models": {}, "left_out": []}
    with tempfile.TemporaryDirectory() as folder:
        models = Models(given.keep or Path(folder), say)
        for name in given.models:
            if name == LITE0 and not (given.weights and given.dataset):
                document["left_out"].append(f"{LITE0}: give --weights and --dataset")
                continue
            document["models"][name] = measure(name, given, models, Path(folder), say)
    print(json.dumps(document, indent=1))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=lambda text: text.split(","), default=list(ROWS), help=", ".join(ROWS))
    parser.add_argument("--models", type=lambda text: text.split(","), default=[RESNET50, LITE0])
    parser.add_argument("--variant", default="onnx-int8", help="that serves ResNet-50; EfficientNet-Lite0's is chosen")
    parser.add_argument("--weights", type=_path, default=os.environ.get("KELPIE_TEST_WEIGHTS"))
    parser.add_argument("--dataset", type=_path, default=os.environ.get("KELPIE_TEST_DATASET"))
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--soak-seconds", type=float, default=600)
    parser.add_argument("--keep", type=_path, help="folder that keeps the models for another run")
    given = parser.parse_args()
    if unknown := set(given.rows) - set(ROWS):
        parser.error(f"--rows: there is no {', '.join(sorted(unknown))}, but {', '.join(ROWS)}")
    return given


def measure(name: str, given: argparse.Namespace, models: Models, folder: Path, say: Any) -> dict[str, Any]:
    """Return a model's rows."""
    real = name == LITE0
    trained = (
        models.train(name, given.weights, given.dataset, "pad") if real else models.train(name, None, None, "crop")
    )
    artifact, table = models.optimise(trained, "fastest" if real else given.variant)
    client = Client(trained.images[:MOST_IMAGES], say)
    bench = rows.Bench(models, client, trained, artifact, given.seconds, given.soak_seconds, say)
    found: dict[str, Any] = {"variant": table["chosen"]}
    wanted = [row for row in ROWS if row in given.rows and (row != "accuracy" or real)]
    if set(wanted) - set(ALONE):
        with ours(artifact, trained.images[0]) as server:
            for row in wanted:
                if row not in ALONE:
                    say(f"{name}: {row}")
                    found[row] = rows.startup(server) if row == "startup" else getattr(rows, row)(bench, server)
    if "photograph" in wanted:
        say(f"{name}: photograph")
        found["photograph"] = rows.photograph(bench)
    if "core_ms" in wanted:
        say(f"{name}: the baseline")
        against = rows.baseline_core_ms(bench)
        ratio = against["core_ms"] / found["core_ms"]["core_ms"]
        found["core_ms"] |= {"baseline": against, "ratio": ratio, "goals": {"ratio": LEAST_SHARE}}
    if "accuracy" in wanted:
        say(f"{name}: accuracy")
        found["accuracy"] = rows.accuracy(bench, folder)
    return found


def _path(text: str) -> Path:
    return Path(text).resolve()


if __name__ == "__main__":
    main()
