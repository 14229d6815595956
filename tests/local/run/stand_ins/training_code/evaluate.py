"""Stands in for EvaluateModel's job: the model is wrong on the first `mistakes` test images of its .model.json."""

import csv
import json
import os
import shutil
import tarfile
import tempfile
from pathlib import Path


def model_of(channel: str) -> dict:
    with tempfile.TemporaryDirectory() as folder, tarfile.open(Path(channel, "model.tar.gz")) as tar:
        tar.extractall(folder, filter="data")
        return json.loads(Path(folder, "model.json").read_text())


model = model_of(os.environ["SM_CHANNEL_MODEL"])
entries = json.loads(Path(os.environ["SM_CHANNEL_MANIFEST"], "manifest.json").read_text())["test"]
classes = sorted({entry["label"] for entry in entries})
matrix = [[0] * len(classes) for _ in classes]
rows = []
for number, entry in enumerate(entries):
    other = next(label for label in classes if label != entry["label"])
    predicted = other if number < model["mistakes"] else entry["label"]
    matrix[classes.index(entry["label"])][classes.index(predicted)] += 1
    rows.append({**entry, "predicted": predicted, "probability": 0.9})
accuracy = sum(row["predicted"] == row["label"] for row in rows) / len(rows)
per_class = [
    {
        "label": label,
        "images": sum(matrix[i]),
        "predicted": sum(row[i] for row in matrix),
        "precision": accuracy,
        "precision_interval": [0.0, 1.0],
        "recall": matrix[i][i] / sum(matrix[i]),
        "recall_interval": [0.0, 1.0],
        "f1": accuracy,
    }
    for i, label in enumerate(classes)
]
champion = None
if channel := os.environ.get("SM_CHANNEL_CHAMPION"):
    manifest = json.loads(Path(os.environ["SM_CHANNEL_CHAMPION_MANIFEST"], "manifest.json").read_text())
    known = {entry["sha256"] for entry in manifest["train"]}
    other = model_of(channel)
    champion = {
        "run_id": "a" * 12,
        "weights_sha256": other["weights_sha256"],
        "same_classes": True,
        "images": len(entries),
        "left_out": sum(entry["sha256"] in known for entry in entries),
        "wins": max(0, other["mistakes"] - model["mistakes"]),
        "losses": max(0, model["mistakes"] - other["mistakes"]),
    }
samples = [
    {**row, "file": f"samples/{number:04}.png", "drawn": number > 4} for number, row in enumerate(rows[::-1][:12], 1)
]
for sample in samples:
    copy = Path(os.environ["SM_MODEL_DIR"], sample["file"])
    copy.parent.mkdir(exist_ok=True)
    shutil.copy(Path(os.environ["SM_CHANNEL_DATASET"], sample["path"]), copy)
bins = [{"low": 0.0, "high": 1.0, "images": len(entries), "confidence": 0.9, "accuracy": accuracy}]
calibration = {"error": 0.0, "log_loss": 0.1, "bins": bins}
document = {
    "version": 1,
    "run_id": os.environ["TRAINING_JOB_NAME"].split("-")[1],
    "split": "test",
    "data_digest": "0" * 64,
    "weights_sha256": model["weights_sha256"],
    "variant": "float32",
    "classes": classes,
    "majority_share": max(map(sum, matrix)) / len(entries),
    "images": len(entries),
    "accuracy": accuracy,
    "accuracy_interval": [0.0, 1.0],
    "top5_accuracy": 1.0,
    "macro_f1": accuracy,
    "macro_f1_interval": [0.0, 1.0],
    "calibration_error": 0.0,
    "calibration": {"temperature": 1.0, "before": calibration, "after": calibration},
    "answered": {"confidence_threshold": 0.0, "images": len(entries), "accuracy": accuracy},
    "per_class": per_class,
    "confusion_matrix": matrix,
    "predictions_file": "predictions.csv",
    "samples": samples,
    "mistakes": [],
    "champion": champion,
}
Path(os.environ["SM_MODEL_DIR"], "evaluation.json").write_text(json.dumps(document))
with Path(os.environ["SM_MODEL_DIR"], "predictions.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, ("path", "sha256", "label", "predicted", "probability"))
    writer.writeheader()
    writer.writerows(rows)
