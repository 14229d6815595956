"""Stands in for EvaluateModel's job: the model is wrong on the first `mistakes` test images of its .model.json."""

import json
import os
import tarfile
import tempfile
from pathlib import Path

with tempfile.TemporaryDirectory() as folder, tarfile.open(Path(os.environ["SM_CHANNEL_MODEL"], "model.tar.gz")) as tar:
    tar.extractall(folder, filter="data")
    model = json.loads(Path(folder, "model.json").read_text())
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
        "precision": accuracy,
        "recall": matrix[i][i] / sum(matrix[i]),
        "f1": accuracy,
    }
    for i, label in enumerate(classes)
]
document = {
    "version": 1,
    "run_id": os.environ["TRAINING_JOB_NAME"].split("-")[1],
    "split": "test",
    "data_digest": "0" * 64,
    "weights_sha256": model["weights_sha256"],
    "classes": classes,
    "majority_share": max(map(sum, matrix)) / len(entries),
    "images": len(entries),
    "accuracy": accuracy,
    "top5_accuracy": 1.0,
    "macro_f1": accuracy,
    "calibration_error": 0.0,
    "per_class": per_class,
    "confusion_matrix": matrix,
    "predictions_file": "predictions.csv",
    "samples": rows[-4:],
    "worst_mistakes": [],
}
Path(os.environ["SM_MODEL_DIR"], "evaluation.json").write_text(json.dumps(document))
