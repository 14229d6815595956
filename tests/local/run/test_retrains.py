"""Findings steer the run: a training that explodes is retrained, and one that cannot be saved is red."""

import json


def test_a_training_that_explodes_is_retrained_with_a_lower_rate_and_deployed(stack):
    ended = stack.run(stack.dataset(explodes=1))
    assert ended["status"] == "SUCCEEDED", ended["cause"]
    first, second = json.loads(ended["output"])["attempts"]
    assert (first["verdict"], second["verdict"]) == ("retrain", "accept")
    assert "the loss became nan at step 3" in first["reason"]
    rates = [float(attempt["hyperparameters"]["learning_rate"]) for attempt in (first, second)]
    assert abs(rates[1] * 10 / rates[0] - 1) < 1e-5
    assert (first["job"][-8:], second["job"][-8:]) == ("-train-1", "-train-2")
    assert first["checkpoints"] != second["checkpoints"]
    assert stack.endpoint()["EndpointStatus"] == "InService"


def test_a_training_that_cannot_be_saved_fails_with_its_finding_and_leaves_the_champion(champion):
    before = champion.endpoint()["EndpointConfigName"]
    ended = champion.run(champion.dataset(explodes=9))
    assert (ended["status"], ended["error"]) == ("FAILED", "TrainingStopped")
    assert "after 2 trainings" in ended["cause"]
    assert "the loss became nan at step 3" in ended["cause"]
    assert champion.endpoint()["EndpointConfigName"] == before
