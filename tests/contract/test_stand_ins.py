"""The jobs that stand in for the real ones in tests/local/run: what they leave keeps the contracts."""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import fastjsonschema
import pytest

ROOT = Path(__file__).parents[2]
STAND_INS = ROOT / "tests" / "local" / "run" / "stand_ins"
RUN = "kelpie-3f2a9c0d1e4b"


@pytest.fixture
def folder(tmp_path):
    for number in range(6):
        for split, label in (("train", "cat"), ("valid", "dog"), ("test", "cat"), ("test", "dog")):
            image = tmp_path / "dataset" / split / label / f"{number}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            image.write_text(f"{split} {label} {number}")
    (tmp_path / "dataset" / ".model.json").write_text('{"mistakes": 1, "serves": "right", "explodes_above": 1}')
    return tmp_path


def job(folder: Path, script: str, name: str, *channels: str) -> Path:
    """Run a job's script on channels that are folders of the same name; return what it left as its model."""
    output = folder / name
    output.mkdir()
    environment = {f"SM_CHANNEL_{channel.upper()}": str(folder / channel) for channel in channels}
    subprocess.run(
        [sys.executable, STAND_INS / "training_code" / script],
        env=os.environ
        | environment
        | {"SM_MODEL_DIR": str(output), "SM_CHECKPOINT_DIR": str(output), "TRAINING_JOB_NAME": f"{RUN}-{name}-1"},
        check=True,
        capture_output=True,
    )
    return output


def pack(source: Path, archive: Path) -> None:
    archive.parent.mkdir(exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source, arcname=".")


def test_what_the_stand_ins_leave_keeps_the_contracts(folder):
    job(folder, "prepare_dataset.py", "manifest", "dataset")
    pack(STAND_INS / "inference_code", folder / "inference_code" / "inference_code.tar.gz")
    trained = job(folder, "train.py", "trained", "dataset", "manifest", "inference_code")
    for name in ("model", "champion"):
        pack(trained, folder / name / "model.tar.gz")
    (folder / "champion_manifest").symlink_to(folder / "manifest")
    channels = ("dataset", "manifest", "model", "champion", "champion_manifest")
    evaluated = job(folder, "evaluate.py", "evaluate", *channels)
    for path in (trained / "findings.json", evaluated / "evaluation.json"):
        schema = json.loads((ROOT / "contracts" / f"{path.stem}.schema.json").read_text())
        fastjsonschema.compile(schema)(json.loads(path.read_text()))
