"""Gathers what jobs and the endpoint install where they have no network (NetworkIsolation), and puts it into a bucket:

    python -m kelpie.wheels s3://BUCKET/wheels/

Wheels of what the requirements pin, and not of what those name in turn, which the images have; for the Python of each
image and Linux on x86-64, as the instances of AWS are by default.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import boto3

ROOT = Path(__file__).parents[1]
ENGINES = ROOT / "inference_code" / "optimize-requirements.txt"
REQUIREMENTS = {
    "training": (ROOT / "training_code" / "requirements.txt", ENGINES),
    "serving": (
        ROOT / "inference_code" / "requirements.txt",
        ROOT / "inference_code" / "requirements-timm.txt",
        ENGINES,
    ),
}
"""By the image that installs them: an evaluation runs the endpoint's engine in the training image."""
PYTHONS = {"training": "3.12", "serving": "3.13"}
"""Of AWS's images (template.yaml's)."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m kelpie.wheels", description=__doc__)
    parser.add_argument("destination", help="s3://BUCKET/wheels/ of the stack")
    for image, version in PYTHONS.items():
        parser.add_argument(f"--{image}-python", default=version, help=f"of the {image} image (default: {version})")
    options = parser.parse_args(arguments)
    bucket, _, prefix = options.destination.removeprefix("s3://").partition("/")
    if not options.destination.startswith("s3://") or prefix.strip("/") != "wheels":
        parser.error(f"the destination must be s3://BUCKET/wheels/, not {options.destination}")
    s3 = boto3.client("s3")
    with tempfile.TemporaryDirectory() as folder:
        for image, files in REQUIREMENTS.items():
            gathered = Path(folder, image)
            gather(files, getattr(options, f"{image}_python"), gathered)
            for wheel in sorted(gathered.iterdir()):
                key = f"wheels/{image}/{wheel.name}"
                s3.upload_file(str(wheel), bucket, key)
                print(f"s3://{bucket}/{key}", flush=True)


def gather(files: tuple[Path, ...], python: str, folder: Path) -> None:
    """Download the wheels of what requirements files pin. Raises CalledProcessError: pip has said why."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--python-version", python, "--dest", str(folder)]
    command += [word for platform in PLATFORMS for word in ("--platform", platform)]
    command += [word for file in files for word in ("--requirement", str(file))]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main(sys.argv[1:])
