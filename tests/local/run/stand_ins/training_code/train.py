"""Stands in for a trial and for the final training: what the model is to be like is in the data set's .model.json."""

import argparse
import hashlib
import json
import os
import shutil
import tarfile
from pathlib import Path

from recipe import Tuned, fine_tune_phase, scaled

arguments = argparse.ArgumentParser()
arguments.add_argument("--epochs", type=int, default=1)
arguments.add_argument("--learning_rate", type=float, default=1e-3)
arguments.add_argument("--learning_rate_scale", type=float, default=1.0)
options = arguments.parse_known_args()[0]
epochs = options.epochs
for epoch in range(1, epochs + 1):
    print(f"epoch {epoch}/{epochs} train_loss={1 / epoch:.4f} valid_loss={1.1 / epoch:.4f}", flush=True)
print("final train_loss=0.1 train_accuracy=0.9 valid_loss=0.1 valid_accuracy=0.9 (epoch 1)", flush=True)
if channel := os.environ.get("SM_CHANNEL_INFERENCE_CODE"):
    model = json.loads(Path(os.environ["SM_CHANNEL_DATASET"], ".model.json").read_text())
    folder = Path(os.environ["SM_MODEL_DIR"])
    with tarfile.open(Path(channel, "inference_code.tar.gz")) as tar:
        tar.extractall(folder, filter="data")
    manifest = Path(os.environ["SM_CHANNEL_MANIFEST"], "manifest.json")
    shutil.copy(manifest, folder)
    weights = hashlib.sha256(json.dumps(model).encode() + manifest.read_bytes()).hexdigest()
    test = [entry["sha256"] for entry in json.loads(manifest.read_text())["test"]]
    served = {**model, "weights_sha256": weights, "mistaken": test[: model["mistakes"]], "samples": test[-4:]}
    (folder / "model.json").write_text(json.dumps(served))
    findings = {"version": 1, "job": os.environ["TRAINING_JOB_NAME"], "steps": 1, "tensors_saved": 0, "tensors": None}
    drawn = {"curves": [], "gradient_norms": {"steps": [], "layers": []}}
    findings |= {"stopped": None, "findings": [], **drawn}
    tuned = Tuned(options.learning_rate, eps=1e-8, weight_decay=0, batch_size=1)
    phase = scaled(fine_tune_phase(tuned, epochs, patience=0, image_size_px=32), options.learning_rate_scale)
    if phase.learning_rate > model["explodes_above"]:
        said = {"rule": "ExplodingTensor", "step": 3, "message": "the loss became nan at step 3: lower it"}
        nothing = {"source": "rules", "tensor": None, "values": {}, "parameters": {}}
        findings |= {"stopped": said, "findings": [{**said, **nothing, "status": "IssuesFound"}]}
    Path(os.environ["SM_CHECKPOINT_DIR"], "findings.json").write_text(json.dumps(findings))
    if findings["stopped"]:
        raise SystemExit(findings["stopped"]["message"])
