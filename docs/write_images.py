"""Write template.yaml's accounts of AWS's images from the SageMaker SDK's own tables.

    python docs/write_images.py FOLDER            FOLDER holds the installed package sagemaker-core
    python docs/write_images.py FOLDER --check    writes nothing, and fails if the template differs

Run by `make images`, and by `make check` with --check; both install the package, without what it depends on, in a
folder of its own (1.4 MB). A region stands in the template if it has both images.
"""

import json
import re
import sys
from pathlib import Path

TEMPLATE = Path(__file__).parents[1] / "template.yaml"
MAPPING = re.compile(r"(?<=\n  DeepLearningContainers:\n)(    \S+: \{ Account: '\d{12}' \}\n)+")
TRAINING = ("pytorch-amzn2023", ("training", "versions", "2.14"))
SERVING = ("ray-serve", ("versions", "1.4"))


def main() -> int:
    tables = Path(sys.argv[1]) / "sagemaker" / "core" / "image_uri_config"
    training, serving = (version(tables, *image) for image in (TRAINING, SERVING))
    template = TEMPLATE.read_text()
    for image in (training, serving):
        for name in names(image, ("cpu", "gpu") if image is training else ("cpu",)):
            if f"/{name}\n" not in template:
                print(f"template.yaml names another image than the SDK's {name}", file=sys.stderr)
                return 1
    written = MAPPING.sub(mapping(training["registries"], serving["registries"]), template, count=1)
    if written == template:
        return 0
    if "--check" in sys.argv:
        print("template.yaml's accounts of images differ from the SDK's tables: run `make images`", file=sys.stderr)
        return 1
    TEMPLATE.write_text(written)
    return 0


def version(tables: Path, framework: str, path: tuple[str, ...]) -> dict:
    found = json.loads((tables / f"{framework}.json").read_text())
    for key in path:
        found = found[key]
    return found


def names(image: dict, kinds: tuple[str, ...]) -> list[str]:
    """The images for these kinds of processors; `tag_prefix` and `container_version` as the SDK joins them."""
    return [f"{image['repository']}:{image['tag_prefix']}-{image['container_version'][kind]}" for kind in kinds]


def mapping(training: dict[str, str], serving: dict[str, str]) -> str:
    """Raises ValueError where a region has the images in two accounts: the template has one for both."""
    regions = sorted(training.keys() & serving.keys())
    if apart := [region for region in regions if training[region] != serving[region]]:
        raise ValueError(f"two accounts in {', '.join(apart)}: the template needs a mapping for each image")
    return "".join(f"    {region}: {{ Account: '{training[region]}' }}\n" for region in regions)


if __name__ == "__main__":
    sys.exit(main())
