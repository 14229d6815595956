"""Frozen features: the backbone runs once over the data set, and every trial and the final head train on what it said.

A folder of features holds one safetensors file a split (`features` (N, D), `labels` (N,), in the manifest's order) and
record.json, which says what they were computed from: a later run with the same inputs finds and reuses them.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batches import Pair, normalise
from data import SPLITS, DatasetError, images_of
from pictures import squares
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

RECORD = "record.json"
CODE = ("batches.py", "data.py", "features.py", "network.py", "pictures.py", "source.py")  # what decides the features
BATCH = 32
LINE_SECONDS = 10.0


def digest_features(data: str, weights: str, architecture: str, preprocessing: Mapping[str, Any], dtype: str) -> str:
    """Return the SHA-256 of all that decides the features, this code included."""
    folder = Path(__file__).parent
    code = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in CODE]
    inputs = [data, weights, architecture, dict(preprocessing), dtype, code]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def find_features(folder: Path, digest: str) -> dict[str, Any] | None:
    """Return the record of the features in `folder` if they are those of `digest` and whole, else None."""
    try:
        record = json.loads((folder / RECORD).read_bytes())
        whole = record["digest"] == digest and all(
            hashlib.sha256((folder / name).read_bytes()).hexdigest() == record["sha256"][split]
            for split, name in record["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return record if whole else None


def compute_features(
    backbone: nn.Module,
    dataset: Path,
    manifest: Mapping[str, Any],
    preprocessing: Mapping[str, Any],
    dtype: torch.dtype,
    device: torch.device,
) -> dict[str, Pair]:
    """Run a network without its classifier over every split: features (N, D) in `dtype` and labels (N,)."""
    backbone = backbone.eval().to(device, memory_format=torch.channels_last)
    return {
        split: _split_features(backbone, dataset, split, images_of(dict(manifest), split), preprocessing, dtype, device)
        for split in SPLITS
    }


def _split_features(
    backbone: nn.Module,
    dataset: Path,
    split: str,
    entries: Sequence[dict[str, Any]],
    preprocessing: Mapping[str, Any],
    dtype: torch.dtype,
    device: torch.device,
) -> Pair:
    """Each worker takes a batch from the file to the features on one thread, so that nothing waits for anything.

    On a GPU, which works on one batch at a time, workers decode and take turns.
    """
    pictures = squares(dataset, entries, preprocessing)
    batches = [range(start, min(start + BATCH, len(entries))) for start in range(0, len(entries), BATCH)]
    on_cpu = device.type == "cpu"
    threads = torch.get_num_threads()

    def work(batch: Sequence[int]) -> torch.Tensor:
        if on_cpu:
            torch.set_num_threads(1)  # of this worker alone
        decoded = np.stack([pictures.read(index) for index in batch])
        with torch.inference_mode(), torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            return backbone(normalise(decoded, preprocessing, device)).to("cpu", dtype)

    parts, done = [], 0
    started = said = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        for part in pool.map(work, batches):
            parts.append(part)
            done += len(part)
            if done == len(entries) or time.monotonic() - said > LINE_SECONDS:
                said = time.monotonic()
                rate = done / (said - started)
                print(f"features {split} {done}/{len(entries)} images_per_second={rate:.0f}", flush=True)
    return torch.cat(parts), torch.tensor([entry["class_index"] for entry in entries])


def write_features(folder: Path, features: Mapping[str, Pair], digest: str, weights_sha256: str) -> dict[str, Any]:
    """Write the features and, last, their record, which is returned."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    files = {split: f"{split}.safetensors" for split in features}
    for split, (values, labels) in features.items():
        save_file({"features": values, "labels": labels}, folder / files[split])
    record = {
        "digest": digest,
        "dimension": features["train"][0].shape[1],
        "dtype": str(features["train"][0].dtype).removeprefix("torch."),
        "files": files,
        "sha256": {split: hashlib.sha256((folder / name).read_bytes()).hexdigest() for split, name in files.items()},
        "weights_sha256": weights_sha256,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1))
    return record


def read_features(folder: Path, manifest: Mapping[str, Any], split: str) -> Pair:
    """Return a split's features, (N, D) float32, and labels, (N,). Raises DatasetError if they are others."""
    described = manifest["features"]
    if described is None:
        raise DatasetError("the manifest has no features: run prepare_dataset.py with mode frozen_features")
    path = folder / described["files"][split]
    try:
        tensors = load_file(path)
        record = json.loads((folder / RECORD).read_bytes())
    except (OSError, ValueError, SafetensorError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    if record["digest"] != described["digest"]:
        raise DatasetError(
            f"{folder} holds features {record['digest'][:12]}, not {described['digest'][:12]}: run it again"
        )
    values, labels = tensors["features"].float(), tensors["labels"]
    if len(values) != len(images_of(dict(manifest), split)):
        raise DatasetError(
            f"{path} holds {len(values)} images, the manifest another number: run prepare_dataset.py again"
        )
    return values, labels
