"""Measure the function that classifies: its package, its import, and what it makes of a 12-megapixel photograph.

    python benchmarks/classify_image.py

Prints one JSON document. Times are medians of CPU time, in milliseconds. The baseline of the import is boto3 with the
function's clients; that of the photograph is decoding it in full, as Pillow does it, in the same process.
"""

import io
import json
import os
import statistics
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from localcloud.packaging import function_package

FOLDER = Path(__file__).parents[1] / "functions" / "classify_image"
ROUNDS = 7
SHORT_SIDE_PX = 512
MOST_BYTES = 6_291_456
CLIENTS = "import boto3; [boto3.client(name) for name in ('s3', 'sqs', 'sagemaker-runtime', 'events')]"


def main() -> None:
    package = function_package("ClassifyImage", FOLDER)
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        unzipped = sum(entry.file_size for entry in archive.infolist())
    clients = import_milliseconds(CLIENTS)
    both = import_milliseconds(f"{CLIENTS}; import app")
    sys.path.insert(0, str(FOLDER))
    from photograph import body_of

    small = encoded(photograph(), quality=90)
    large = encoded(photograph(noise=True), quality=95)
    converted = milliseconds(lambda: body_of(large, "image/jpeg", MOST_BYTES, SHORT_SIDE_PX))
    full = milliseconds(lambda: Image.open(io.BytesIO(large)).load())
    print(
        json.dumps(
            {
                "package_mb": round(len(package) / 1e6, 1),
                "unzipped_mb": round(unzipped / 1e6, 1),
                "import_ms": round(both - clients, 1),
                "import_of_boto3_and_clients_ms": round(clients, 1),
                "import_ratio": round((both - clients) / clients, 3),
                "photograph_within_limit_mb": round(len(small) / 1e6, 1),
                "photograph_within_limit_ms": round(
                    milliseconds(lambda: body_of(small, "image/jpeg", MOST_BYTES, SHORT_SIDE_PX)), 3
                ),
                "photograph_above_limit_mb": round(len(large) / 1e6, 1),
                "photograph_above_limit_ms": round(converted, 1),
                "full_decode_ms": round(full, 1),
                "photograph_ratio": round(converted / full, 3),
            },
            indent=2,
        )
    )


def photograph(noise: bool = False) -> Image.Image:
    """12 megapixels: gradients, and grain if it is to be hard to compress."""
    size = (4000, 3000)
    bands = [Image.linear_gradient("L").rotate(angle).resize(size) for angle in (0, 90, 180)]
    picture = Image.merge("RGB", bands)
    if noise:
        grain = Image.merge("RGB", [Image.effect_noise(size, 30) for _ in range(3)])
        picture = Image.blend(picture, grain, 0.5)
    return picture


def encoded(picture: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def import_milliseconds(statement: str) -> float:
    """Of a fresh interpreter, median."""
    code = f"import time; t = time.process_time(); {statement}; print((time.process_time() - t) * 1000)"
    environment = os.environ | {"PYTHONPATH": str(FOLDER), "AWS_DEFAULT_REGION": "us-east-1"}
    runs = [
        subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        for _ in range(ROUNDS)
    ]
    return statistics.median(float(run.stdout) for run in runs)


def milliseconds(work: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        started = time.process_time()
        work()
        times.append((time.process_time() - started) * 1000)
    return statistics.median(times)


if __name__ == "__main__":
    main()
