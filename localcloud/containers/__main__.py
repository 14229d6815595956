"""Build the environments of container images ahead of their first use.

python -m localcloud.containers build pytorch ray --requirements training_code/requirements.txt
"""

import argparse
import sys
from pathlib import Path

from localcloud.containers.environments import IMAGE_LAYERS, EnvironmentBuildFailed, Environments


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m localcloud.containers")
    build = parser.add_subparsers(required=True, metavar="COMMAND").add_parser("build", help="build environments")
    build.add_argument("images", nargs="+", choices=IMAGE_LAYERS, metavar="IMAGE", help=", ".join(IMAGE_LAYERS))
    build.add_argument(
        "--requirements",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a requirements.txt on top of the first image; given again, of the second",
    )
    arguments = parser.parse_args()
    environments = Environments()
    if len(arguments.requirements) > len(arguments.images):
        parser.error("there are more --requirements than images")
    missing = [str(file) for file in arguments.requirements if not file.is_file()]
    if missing:
        parser.error(f"no such file: {', '.join(missing)}")
    try:
        for number, image in enumerate(arguments.images):
            if number < len(arguments.requirements):
                built = environments.with_requirements(image, arguments.requirements[number], _say)
            else:
                built = environments.image(image, _say)
            _say(f"{image}: {built.layers[0]}")
    except EnvironmentBuildFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
