"""What a run and the endpoint say of a model that was trained again."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from kelpie import status, summary
from kelpie.execution import Trial
from kelpie.progress import trained_again

RUN = "3f2a9c0d1e4b"
REVIEW = (Path(__file__).parents[3] / "contracts" / "examples" / "debugger_review.json").read_bytes()
(REASON,) = [one["reason"] for one in json.loads(REVIEW)["attempts"] if one["verdict"] == "retrain"]


def test_why_it_was_is_read_from_the_review_and_a_run_without_one_has_no_reason(stack, s3):
    assert trained_again(stack, RUN) == {}
    s3.put_object(Bucket=stack.bucket, Key=f"runs/{RUN}/debugger_review.json", Body=REVIEW)
    assert trained_again(stack, RUN) == {"kelpie-3f2a9c0d1e4b-train-1": REASON}


@pytest.mark.parametrize(
    ("scale", "chosen"), [("1", {"eps": "1e-08"}), ("0.1", {"eps": "1e-08", "learning_rate_scale": "0.1"})]
)
def test_the_scale_of_the_learning_rate_is_told_where_there_is_one(scale, chosen):
    training = {"HyperParameters": {"eps": "1e-08", "dropout": "0", "learning_rate_scale": scale}}
    assert summary._chosen(training, [Trial("t", "Completed", 0.5, {"eps": "1e-08"}, 1.0)]) == chosen


def test_the_status_tells_it_of_the_model_in_service():
    came = {"package_arn": "arn:aws:sagemaker:::model-package/kelpie/2", "approval": "Approved", "run_id": RUN}
    came |= {"data_digest": "d" * 64, "accuracy": "0.9", "trained_again": [REASON]}
    endpoint = {"name": "kelpie", "status": "InService", "config": "c", "model": "m", "failure_reason": None}
    shown = {
        "cloud": {"endpoint_url": "http://127.0.0.1:4566", "home": None},
        "stack": {"name": "kelpie", "status": "CREATE_COMPLETE", "outputs": {}},
        "endpoint": endpoint | {"lineage": came},
        "executions": [],
    }
    screen = Console(file=io.StringIO(), width=80, record=True)
    status.show(shown, screen)
    assert f"trained again: {REASON}" in screen.export_text()
