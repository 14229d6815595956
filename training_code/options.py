"""Options of the scripts, and their folders.

SageMaker's training toolkit starts a script with its hyperparameters as `--name value` and its folders in SM_*
variables; by hand the folders are options too.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from job import JobError

WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt")


class OptionsError(JobError):
    """An option is unknown, missing, or has a value that is not accepted."""


class Parser(argparse.ArgumentParser):
    """Options of a script: `--name value`, folders by default from SM_* variables, errors as OptionsError."""

    def __init__(self, description: str | None):
        super().__init__(
            description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
        )

    def folder(self, name: str, variable: str, meaning: str, *, required: bool = False) -> None:
        """Add a path option that defaults to an SM_* variable."""
        value = os.environ.get(variable)
        self.add_argument(
            f"--{name}",
            type=Path,
            default=Path(value) if value else None,
            required=required and not value,
            help=f"{meaning} (default: ${variable})",
        )

    def parse(self, arguments: Sequence[str] | None) -> argparse.Namespace:
        """Parse, without the options that begin with an underscore: SageMaker's tuner adds those for itself."""
        given = list(sys.argv[1:] if arguments is None else arguments)
        kept: list[str] = []
        while given:
            option = given.pop(0)
            if option.startswith("--_"):
                if "=" not in option and given:
                    given.pop(0)
            else:
                kept.append(option)
        return self.parse_args(kept)

    def error(self, message: str) -> NoReturn:
        raise OptionsError(f"{message}; `python {Path(sys.argv[0]).name} --help` lists the options")


def boolean(text: str) -> bool:
    """Read `true` or `false`."""
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def number(
    kind: Callable[[str], Any], minimum: float, maximum: float = float("inf"), *, above: bool = False
) -> Callable[[str], Any]:
    """Return a reader of numbers from `minimum` (not itself, if `above`) to `maximum`."""

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} is no {kind.__name__}") from error
        if not (minimum < value if above else minimum <= value) or not value <= maximum:
            lowest = f"above {minimum}" if above else f"at least {minimum}"
            highest = "" if maximum == float("inf") else f" and at most {maximum}"
            raise argparse.ArgumentTypeError(f"{text} is not {lowest}{highest}")
        return value

    return read


def rule_parameters(text: str) -> dict[str, dict[str, float | bool]]:
    """Read `Rule.parameter=value`, several with commas; `none` for none."""
    parameters: dict[str, dict[str, float | bool]] = {}
    for given in text.split(",") if text != "none" else ():
        matched = re.fullmatch(r"(\w+)\.(\w+)=(true|false|-?[\d.]+(?:[eE][+-]?\d+)?)", given)
        if not matched:
            raise argparse.ArgumentTypeError(f"{given!r} is not Rule.parameter=value, with a number, true or false")
        rule, name, value = matched.groups()
        said = json.loads(value)
        whole = isinstance(said, float) and said.is_integer()  # 10.0 is an integer to a contract, not to a slice
        parameters.setdefault(rule, {})[name] = int(said) if whole else said
    return parameters


def add_network_options(parser: Parser) -> None:
    """Add what every job that builds a network is told about it."""
    parser.add_argument(
        "--mode",
        choices=("full", "frozen_features"),
        default="full",
        help="full: train the whole network; frozen_features: the backbone runs once, the head trains (default: full)",
    )
    parser.add_argument("--architecture", default="resnet50", help="torchvision's name, or timm:<name> (resnet50)")
    parser.add_argument(
        "--weights",
        choices=("none", "default", "channel"),
        default="none",
        help="none: from scratch; default: the library's pretrained ones; channel: weights_file (default: none)",
    )
    parser.folder("weights_file", "SM_CHANNEL_WEIGHTS", "state_dict, a .safetensors, .pth or .pt file or its folder")
    parser.add_argument("--image_size_px", type=number(int, 8, 1024), default=224, help="side of the square seen")
    parser.add_argument(
        "--fit",
        choices=("crop", "pad"),
        default="pad",
        help="crop: the centre square of an image; pad: all of it, with a margin (default: pad)",
    )
    parser.add_argument("--seed", type=number(int, 0, 2**32 - 1), default=0, help="seeds every random choice")


def check_network_options(given: dict[str, Any]) -> None:
    """Resolve weights_file to the file itself. Raises OptionsError for what does not go together."""
    if given["mode"] == "frozen_features" and given["weights"] == "none":
        raise OptionsError("mode frozen_features needs pretrained weights: features of a random network say little")
    if given["weights"] != "channel":
        given["weights_file"] = None
        return
    path: Path | None = given["weights_file"]
    if path is None:
        raise OptionsError("weights is channel, but there is no channel weights: give weights_file")
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    if len(files) != 1 or files[0].suffix not in WEIGHTS_SUFFIXES or not files[0].is_file():
        names = ", ".join(file.name for file in files) or "nothing"
        raise OptionsError(f"{path} holds {names}; expected is one file with {', '.join(WEIGHTS_SUFFIXES)}")
    given["weights_file"] = files[0]
