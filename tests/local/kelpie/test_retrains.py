"""Real trainings, steered by what the debugger finds: at a rate that is far too high, and mended or not."""

import json

import pytest

pytestmark = pytest.mark.slow

SMALL = (
    "model.weights=none",
    "model.architecture=resnet18",
    "model.image_size_px=32",
    "tuning.max_jobs=1",
    "tuning.epochs=1",
    "tuning.ranges.batch_size=16",
    "training.epochs=4",
    "debugger.actions.WeightUpdateRatio=lower_learning_rate",
)
FAR_TOO_HIGH = ("tuning.ranges.learning_rate.min=10", "tuning.ranges.learning_rate.max=11")


def run(live, *settings):
    done = live("run", "photos", "--json", *(f"--set={one}" for one in (*SMALL, *FAR_TOO_HIGH, *settings)))
    document = json.loads(done.stdout)
    return document, json.loads(live.ok("status", "--json"))["endpoint"]


def review_of(session, outputs, document):
    key = f"runs/{document['run_id']}/debugger_review.json"
    return json.loads(session.client("s3").get_object(Bucket=outputs["Bucket"], Key=key)["Body"].read())


def test_a_training_that_explodes_is_trained_again_at_a_lower_rate_and_deployed(trained, live, session, outputs):
    assert trained["status"] == "SUCCEEDED"
    document, _ = run(live, "endpoint_name=kelpie-mended", "debugger.changes.learning_rate_factor=1000")
    assert document["status"] == "SUCCEEDED", document
    first, second = review_of(session, outputs, document)["attempts"]
    assert (first["verdict"], second["verdict"]) == ("retrain", "accept")
    assert "WeightUpdateRatio" in first["reason"]
    assert second["hyperparameters"]["learning_rate_scale"] == "0.001"
    assert document["hyperparameters"]["learning_rate_scale"] == "0.001"
    assert document["trained_again"] == [first["reason"]]
    mended = session.client("sagemaker").describe_endpoint(EndpointName="kelpie-mended")
    assert mended["EndpointStatus"] == "InService"
    session.client("sagemaker").delete_endpoint(EndpointName="kelpie-mended")


def test_one_that_cannot_be_saved_ends_with_its_finding_and_leaves_what_is_in_service(trained, live):
    before = json.loads(live.ok("status", "--json"))["endpoint"]
    document, after = run(live, "debugger.changes.learning_rate_factor=1.1")
    assert (document["status"], document["error"]) == ("FAILED", "TrainingStopped")
    assert "after 2 trainings" in document["cause"]
    assert "times its size: lower the learning rate" in document["cause"]
    assert trained["status"] == "SUCCEEDED"
    assert after == before
