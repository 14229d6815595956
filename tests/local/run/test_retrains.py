"""Findings steer the run: a training that explodes is retrained, and one that cannot be saved is red."""

import json

FINE_TUNED = {"model": {"weights": "default"}, "serving": {"variant": "float32"}}
"""A head and then the network, whose learning rate is at least 3e-4 whatever the trials choose."""


def test_a_training_that_explodes_is_retrained_with_a_lower_rate_and_deployed(stack):
    ended = stack.run(stack.dataset(explodes_above=1e-4), **FINE_TUNED)
    assert ended["status"] == "SUCCEEDED", ended["cause"]
    first, second = json.loads(ended["output"])["attempts"]
    assert (first["verdict"], second["verdict"]) == ("retrain", "accept")
    assert "the loss became nan at step 3" in first["reason"]
    assert "learning_rate_scale 0.1 (was 1)" in first["reason"]
    assert second["hyperparameters"] == {**first["hyperparameters"], "learning_rate_scale": "0.1"}
    assert (first["job"][-8:], second["job"][-8:]) == ("-train-1", "-train-2")
    assert first["checkpoints"] != second["checkpoints"]
    assert stack.endpoint()["EndpointStatus"] == "InService"


def test_a_training_that_cannot_be_saved_fails_with_its_finding_and_leaves_the_champion(champion):
    before = champion.endpoint()["EndpointConfigName"]
    ended = champion.run(champion.dataset(explodes_above=1e-9), **FINE_TUNED)
    assert (ended["status"], ended["error"]) == ("FAILED", "TrainingStopped")
    assert "after 2 trainings" in ended["cause"]
    assert "the loss became nan at step 3" in ended["cause"]
    assert champion.endpoint()["EndpointConfigName"] == before
