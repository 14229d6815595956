"""Makes request bodies of large and hostile files in a process that has as much memory as the function is given.

`python limited_function.py MIB` prints a line for each file: its name and what became of it. What is limited is the
address space, of which a process never has less than memory; only Linux keeps such a limit.
"""

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[3] / "functions" / "classify_image"))
import boto3
import hostile_corpus as made
from content import ContentRejected, type_of
from photograph import MOST_DECODED_BYTES, body_of
from PIL import Image

LIMIT = 6_291_456
LARGEST_OBJECT_BYTES = 64 * 1024 * 1024


def main() -> None:
    files = {sample.name: sample.content for sample in made.bombs()} | dict(large())
    clients = [boto3.client(name, region_name="eu-west-1") for name in ("s3", "sqs", "sagemaker-runtime", "events")]
    others = sum(len(file) for file in files.values())  # which the function would not hold beside the one
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]) * 2**20 + others, resource.RLIM_INFINITY))
    for name, file in files.items():
        received = bytes(bytearray(file))
        try:
            outcome = body_of(received, type_of(received), LIMIT, 512)[1]
        except ContentRejected as rejection:
            outcome = rejection.code
        print(f"{name}\t{outcome}")
    print(f"with {len(clients)} clients\tended")


def large() -> Iterator[tuple[str, bytes]]:
    """As large as is taken, by each decoder."""
    for kind, mode, copies, options in (
        ("WEBP", "RGB", 5, {"lossless": True, "method": 0}),
        ("GIF", "P", 2, {}),
        ("TIFF", "RGBA", 4, {"compression": "tiff_lzw"}),
    ):
        side = int((MOST_DECODED_BYTES / 4 / copies) ** 0.5) - 1
        yield f"the largest {kind}", made.encoded(Image.new(mode, (side, side)), kind, **options)
    side = int((LARGEST_OBJECT_BYTES / 3) ** 0.5) - 8
    yield "the largest BMP", made.encoded(Image.new("RGB", (side, side)), "BMP")
    side = int((MOST_DECODED_BYTES / (6 + 8 / 16)) ** 0.5) - 1  # coefficients, and pixels at a quarter of the side
    progressive = made.encoded(Image.new("RGB", (side, side)), "JPEG", progressive=True)
    yield "the largest progressive JPEG above the limit", made.segment(progressive, b"\0" * 65_000, 100)


if __name__ == "__main__":
    main()
