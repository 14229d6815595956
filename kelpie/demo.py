"""`make demo`: the whole run on the handwritten digits that scikit-learn ships, on a local cloud of its own.

It uses the command as a user would, in a folder of its own, .kelpie-demo below the current one, which the next demo
writes anew; it stops all that it started, whatever happens, and exits with 1 if anything failed. The digits are written
as train/, valid/ and test/ folders of PNG files and packed into an archive; some are held back and dropped into the
inbox once the endpoint is in service.

    .venv/bin/python -m kelpie.demo
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# A small network from scratch: what a laptop's two cores train in two minutes. All else is as in any run.
SETTINGS = {
    "model.architecture": "resnet18",
    "model.weights": "none",
    "model.image_size_px": "24",
    "tuning.max_jobs": "6",
    "tuning.max_parallel_jobs": "2",
    "tuning.epochs": "2",
    # From scratch in two epochs: outside of these a trial learns nothing, and six trials may all fall there.
    "tuning.ranges.learning_rate.min": "3e-4",
    "tuning.ranges.learning_rate.max": "1e-2",
    "training.epochs": "6",
    "gate.min_accuracy": "0.9",
}
SHARES = {"train": 0.7, "valid": 0.14, "test": 0.14}
"""What is left is held back."""
HELD_BACK_SHOWN = 12
SEED = 7


def main() -> int:
    # A SIGTERM ends like Ctrl-C, so that everything is stopped on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.monotonic()
    folder = Path(".kelpie-demo").resolve()
    home = folder / ".kelpie"
    environment = os.environ | {"KELPIE_HOME": str(home)}
    if home.exists():  # a demo that was killed may have left its cloud running
        subprocess.run([sys.executable, "-m", "kelpie", "down"], env=environment, check=False)
    shutil.rmtree(folder, ignore_errors=True)
    held_back = write_digits(folder / "digits", folder / "held-back")
    # One file of an archive is there sooner than 1,758 of a folder, and in every job.
    archive = shutil.make_archive(str(folder / "digits"), "zip", folder, "digits")
    try:
        kelpie(environment, "up", "--port", str(free_port()), quiet=True)
        kelpie(environment, "run", archive, *(f"--set={key}={SETTINGS[key]}" for key in SETTINGS))
        answers = classify(environment, list(held_back)[:HELD_BACK_SHOWN])
    except subprocess.CalledProcessError as error:
        print(f"\nThe demo failed: kelpie {error.cmd[3]} ended with {error.returncode}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nThe demo was interrupted", file=sys.stderr)
        return 1
    finally:
        subprocess.run([sys.executable, "-m", "kelpie", "down"], env=environment, check=False)
    show_answers(answers, held_back)
    print(f"\nWhat it left is kept. To bring it back: KELPIE_HOME={folder.name}/.kelpie .venv/bin/kelpie up")
    print(f"The demo took {time.monotonic() - started:.0f} s, from starting the cloud to stopping it.")
    return int(any(answer["status"] not in ("classified", "unknown") for answer in answers))


def write_digits(folder: Path, held_back_folder: Path) -> dict[Path, str]:
    """Write the digits to folder/<split>/<class>/, each class in the same shares, and the rest to `held_back_folder`.

    Return the files that are held back, shuffled, with their labels.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    def picture(levels: Any) -> Any:
        return Image.fromarray((levels * (255 / 16)).astype("uint8"))

    digits = load_digits()
    shuffle = random.Random(SEED).shuffle
    held_back: list[tuple[Path, str]] = []
    held_back_folder.mkdir(parents=True)
    for digit in range(10):
        label = f"digit-{digit}"
        indices = [int(index) for index in (digits.target == digit).nonzero()[0]]
        shuffle(indices)
        total = len(indices)
        for split, share in SHARES.items():
            (folder / split / label).mkdir(parents=True)
            for _ in range(round(share * total)):
                index = indices.pop()
                picture(digits.images[index]).save(folder / split / label / f"{index:04d}.png")
        for index in indices:
            path = held_back_folder / f"{index:04d}.png"
            picture(digits.images[index]).save(path)
            held_back.append((path, label))
    shuffle(held_back)
    return dict(held_back)


def kelpie(environment: Mapping[str, str], *arguments: str, quiet: bool = False) -> str:
    """Run the command. Return what it printed if `quiet`; else it prints on. Raises CalledProcessError."""
    output = subprocess.PIPE if quiet else None
    command = [sys.executable, "-m", "kelpie", *arguments]
    completed = subprocess.run(command, env=environment, stdout=output, text=True, check=True)
    return completed.stdout or ""


def classify(environment: Mapping[str, str], images: Sequence[Path]) -> list[dict[str, Any]]:
    """Return a row an image. The command ends with 1 if one of them got no label, which is an answer too."""
    try:
        printed = kelpie(environment, "classify", "--json", *map(str, images), quiet=True)
    except subprocess.CalledProcessError as error:
        if error.returncode != 1 or not error.stdout:
            raise
        printed = error.stdout
    return list(json.loads(printed))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def show_answers(answers: list[dict[str, Any]], labels: Mapping[Path, str]) -> None:
    print(f"\n{'Image':<12}{'Predicted':<12}{'Probability':<13}{'Truth'}")
    right = 0
    for answer in answers:
        path = Path(answer["file"])
        label = answer["label"] or answer["status"]
        probability = "-" if answer["probability"] is None else f"{answer['probability']:.4f}"
        verdict = "right" if label == labels[path] else f"wrong: it is {labels[path]}"
        verdict += f": {answer['reason']['message']}" if answer["reason"] else ""
        right += answer["label"] == labels[path]
        print(f"{path.name:<12}{label:<12}{probability:<13}{verdict}")
    print(f"{right} of {len(answers)} images that were held back are right.")


if __name__ == "__main__":
    sys.exit(main())
