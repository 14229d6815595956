"""PrepareDataset: decode every image once, write the manifest that all later jobs read, and compute frozen features.

Unreadable images fail the job here, before anything else is paid for, unless max_unreadable allows for them.

By hand, on a folder or a zip archive (layout.py says what may be in it):

    python training_code/prepare_dataset.py --dataset photos --model_dir prepared
    python training_code/prepare_dataset.py --dataset photos --model_dir prepared \\
        --mode frozen_features --weights channel --weights_file resnet50.safetensors --checkpoint_dir features

The first writes prepared/manifest.json and prepared/samples/; the second also features/, which train.py takes as
--features.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import NAMED_PATHS, SPLITS, DatasetError, count_images, digest_images, images_of, spread_over_classes
from documents import write_document
from inspection import assign_splits, inspect_images, list_dataset
from job import run
from near_duplicates import find_near_duplicates
from options import OptionsError, Parser, add_network_options, check_network_options, number
from source import read_image
from thumbnails import write_thumbnail

SAMPLES_OF_A_CLASS = 3
MOST_SAMPLES = 400


@dataclass(frozen=True)
class Options:
    """What prepare_dataset.py is asked to do."""

    dataset: Path
    dataset_uri: str
    model_dir: Path
    checkpoint_dir: Path | None
    mode: str
    architecture: str
    image_size_px: int
    fit: str
    weights: str
    weights_file: Path | None
    max_unreadable: int
    valid_share: float
    test_share: float
    truncated: str
    near_duplicates: str
    seed: int


def read_options(arguments: list[str] | None) -> Options:
    """Read options and SM_* variables. Raises OptionsError."""
    parser = Parser(__doc__)
    parser.folder("dataset", "SM_CHANNEL_DATASET", "folder or zip archive of labelled images", required=True)
    parser.folder("model_dir", "SM_MODEL_DIR", "where manifest.json goes", required=True)
    parser.folder("checkpoint_dir", "SM_CHECKPOINT_DIR", "where the features go, and where earlier ones are found")
    parser.add_argument("--dataset_uri", default="", help="where the images came from, for the manifest")
    parser.add_argument(
        "--max_unreadable", type=number(int, 0), default=0, help="unreadable images to leave out (default: 0)"
    )
    share = number(float, 0, 0.5, above=True)
    taken = "of each class's training images that is taken where it is not given (default: 0.15)"
    parser.add_argument("--valid_share", type=share, default=0.15, help=f"valid/: share {taken}")
    parser.add_argument("--test_share", type=share, default=0.15, help=f"test/: share {taken}")
    parser.add_argument(
        "--truncated",
        choices=("unreadable", "train"),
        default="unreadable",
        help="JPEG files that break off: count as unreadable, or train on what there is (default: unreadable)",
    )
    parser.add_argument(
        "--near_duplicates",
        choices=("drop", "report"),
        default="drop",
        help="images of two splits: drop the one that is less needed, or only report it (default: drop)",
    )
    add_network_options(parser)
    given = vars(parser.parse(arguments))
    check_network_options(given)
    given["dataset_uri"] = given["dataset_uri"] or str(given["dataset"])
    if given["mode"] == "frozen_features" and given["checkpoint_dir"] is None:
        raise OptionsError("mode frozen_features needs a folder for the features: give checkpoint_dir")
    return Options(**given)


def prepare(options: Options) -> None:
    """Write the manifest and, in mode frozen_features, the features. Raises DatasetError, WeightsUnavailable, ..."""
    started = time.monotonic()
    listing = list_dataset(options.dataset)
    entries, fingerprints, unreadable = inspect_images(
        options.dataset,
        listing.images,
        options.image_size_px if options.fit == "crop" else None,
        options.truncated,
        os.cpu_count() or 1,
    )
    _check_unreadable(unreadable, options.max_unreadable)
    shares = {"valid": options.valid_share, "test": options.test_share}
    assign_splits(entries, listing.classes, listing.missing, shares)
    pairs = find_near_duplicates(entries, fingerprints)
    dropped = {pair["path"] for pair in pairs} if options.near_duplicates == "drop" else set()
    entries = [entry for entry in entries if entry["path"] not in dropped]
    counts = count_images(entries, listing.classes)
    _check_classes(counts)
    manifest: dict[str, Any] = {
        "version": 1,
        "dataset_uri": options.dataset_uri,
        "digest": digest_images(entries, listing.classes),
        "classes": listing.classes,
        "counts": counts,
        "imbalance": _imbalance(counts["train"]),
        "splits_taken": {split: shares[split] for split in listing.missing},
        "images": entries,
        "unreadable": unreadable,
        "near_duplicates": [{**pair, "dropped": pair["path"] in dropped} for pair in pairs],
        "ignored": listing.ignored,
        "samples": _choose_samples(entries, listing.classes),
        "features": None,
    }
    print(
        f"decoded {len(entries)} images of {len(listing.classes)} classes in {time.monotonic() - started:.1f} s, "
        f"{len(unreadable)} unreadable, {len(pairs)} near-duplicates across splits, "
        f"{len(listing.ignored)} files ignored",
        flush=True,
    )
    print("; ".join(f"{split}: {sum(counts[split].values())} images" for split in SPLITS), flush=True)
    if options.mode == "frozen_features" and options.checkpoint_dir is not None:
        manifest["features"] = _prepare_features(options, options.checkpoint_dir, manifest)
    for sample in manifest["samples"]:
        write_thumbnail(options.model_dir / sample["thumbnail"], read_image(options.dataset, sample))
    write_document(options.model_dir / "manifest.json", manifest, "manifest")


def _check_unreadable(unreadable: list[dict[str, str]], allowed: int) -> None:
    if len(unreadable) > allowed:
        named = "; ".join(f"{entry['path']}: {entry['reason']}" for entry in unreadable[:NAMED_PATHS])
        raise DatasetError(
            f"{len(unreadable)} images cannot be read, max_unreadable is {allowed}: {named}"
            + ("; ..." if len(unreadable) > NAMED_PATHS else "")
        )
    for entry in unreadable:
        print(f"left out {entry['path']}: {entry['reason']}", flush=True)


def _check_classes(counts: dict[str, dict[str, int]]) -> None:
    for split in SPLITS:
        empty = [name for name, images in counts[split].items() if images == 0]
        if empty:
            raise DatasetError(
                f"{split}/ has no image left of {', '.join(empty[:NAMED_PATHS])}: the others cannot be read, or stand "
                "in another split as well (near_duplicates)"
            )


def _imbalance(images: dict[str, int]) -> dict[str, Any]:
    """Return the largest and the smallest class of the training images, and how many times larger the one is."""
    largest, smallest = max(images, key=lambda name: images[name]), min(images, key=lambda name: images[name])
    return {"largest": largest, "smallest": smallest, "ratio": images[largest] / images[smallest]}


def _choose_samples(entries: Sequence[dict[str, Any]], classes: Sequence[str]) -> list[dict[str, Any]]:
    train = [entry for entry in images_of({"images": entries}, "train") if not entry["truncated"]]
    chosen = spread_over_classes(train, min(SAMPLES_OF_A_CLASS * len(classes), MOST_SAMPLES))
    return [
        {
            "path": entry["path"],
            "label": classes[entry["class_index"]],
            "thumbnail": f"samples/{number:04}.jpg",
        }
        for number, entry in enumerate(sorted(chosen, key=lambda entry: entry["path"]), 1)
    ]


def _prepare_features(options: Options, folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    # torch and torchvision take seconds to import, which a job that only decodes does not wait for
    import torch
    from features import compute_features, digest_features, find_features, write_features
    from network import open_network, preprocessing_of, replace_classifier
    from precision import choose_device, inference_dtype
    from torch import nn

    network, head, weights_sha256 = open_network(
        options.architecture, options.image_size_px, options.weights, options.weights_file
    )
    device = choose_device()
    dtype = inference_dtype(device)
    preprocessing = preprocessing_of(options.architecture, options.image_size_px, options.fit)
    if weights_sha256 is None:
        raise OptionsError("features need pretrained weights")
    digest = digest_features(manifest["digest"], weights_sha256, options.architecture, preprocessing, str(dtype))
    record = find_features(folder, digest)
    reused = record is not None
    print(
        f"features {digest[:12]} of {options.architecture} in {str(dtype).removeprefix('torch.')}: "
        + ("an earlier run left them" if reused else f"computing on {device}, {torch.get_num_threads()} threads"),
        flush=True,
    )
    if record is None:
        replace_classifier(network, head, nn.Identity())
        features = compute_features(network, options.dataset, manifest, preprocessing, dtype, device)
        record = write_features(folder, features, digest, weights_sha256)
    fields = ("digest", "dimension", "dtype", "files", "weights_sha256")
    return {**{name: record[name] for name in fields}, "reused": reused}


if __name__ == "__main__":
    run(lambda: prepare(read_options(None)))
