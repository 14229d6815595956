"""What a final training leaves of what was seen in it, however it ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from documents import read_document
from engine import TrainingStopped
from final_model import watched
from small_trainings import Pictures, issues, make_network, train, zero
from train_options import read_options

TRAINING_CODE = Path(__file__).parents[3] / "training_code"
HANGS = """
import sys, time
sys.path.insert(0, {tests!r})
import debugging
from final_model import watched
from rules.stalled import StalledTrainingRule
from small_trainings import Pictures, make_network, train
from train_options import read_options

class Hanging(Pictures):
    now = 0.0  # by a clock that stands still as long as steps end, however long they take

    def train(self, batches, *_):
        for step, batch in enumerate(super().train(batches)):
            if step == {step}:
                Hanging.now = 2.0
                time.sleep(3600)
            yield batch

debugging.WATCH_SECONDS = 0.1
StalledTrainingRule.__init__.__defaults__ = (1.0, lambda: Hanging.now)
with watched(read_options({arguments!r})) as observer:
    train(observer, make_network(), Hanging())
"""


@pytest.mark.parametrize("ending", [TrainingStopped("SIGTERM"), MemoryError(), OSError("no such image")], ids=repr)
def test_what_was_found_is_left_however_a_training_ends(
    final: dict[str, Any], arguments: Callable[..., list[str]], tmp_path: Path, ending: BaseException
) -> None:
    def train_until_it_ends() -> None:
        with watched(read_options(arguments(**final | {"checkpoint_dir": tmp_path / "checkpoints"}))) as observer:
            train(observer, zero(make_network()), Pictures(), epochs=1)
            raise ending

    with pytest.raises(type(ending)):
        train_until_it_ends()

    for folder in ("output", "checkpoints"):
        findings = read_document(tmp_path / folder / "findings.json", "findings")
        assert "AllZero" in issues(findings)
        assert (findings["stopped"], findings["steps"]) == (None, 20)
        assert read_document(tmp_path / folder / "profile.json", "profile")["steps"] == 20


def test_findings_that_cannot_be_written_do_not_hide_why_a_training_ended(
    final: dict[str, Any], arguments: Callable[..., list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "output").write_text("no folder")

    with pytest.raises(TrainingStopped), watched(read_options(arguments(**final | {"debugger": "false"}))):
        raise TrainingStopped("SIGTERM")

    assert "debugger: no findings: FileExistsError" in capsys.readouterr().out


@pytest.mark.parametrize(("step", "window"), [(13, None), (16, 12)], ids=["in the window", "after it"])
def test_a_training_that_hangs_is_ended_with_its_findings_and_its_profile(
    final: dict[str, Any], arguments: Callable[..., list[str]], tmp_path: Path, step: int, window: int | None
) -> None:
    given = arguments(**final | {"debugger_stop_on": "StalledTrainingRule"})
    script = HANGS.format(tests=str(Path(__file__).parent), arguments=given, step=step)

    job = subprocess.run(
        [sys.executable, "-c", script], cwd=TRAINING_CODE, capture_output=True, text=True, check=False, timeout=600
    )

    assert job.returncode == 1, job.stderr
    assert "TrainingHopeless: No step ended for" in job.stderr
    findings = read_document(tmp_path / "output/findings.json", "findings")
    assert findings["stopped"]["rule"] == "StalledTrainingRule"
    profile = read_document(tmp_path / "output/profile.json", "profile")
    assert profile["steps"] == step
    assert (profile["window"] or {}).get("first_step") == window
