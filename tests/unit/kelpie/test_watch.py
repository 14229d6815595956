"""How trials are shown."""

import pytest

from kelpie.execution import Trial
from kelpie.watch import describe_trial, short_number

VALUES = {"learning_rate": "0.0015676677195506068", "batch_size": '"64"', "eps": "5.190263017695148e-09"}


def test_a_finished_trial_is_one_line_with_its_objective_and_values():
    trial = Trial("kelpie-tune-1-001", "Completed", 0.95634, VALUES, 38.46)
    assert describe_trial(3, trial) == "trial 3  0.9563  batch_size=64 eps=5.19e-09 learning_rate=0.00157  38.5 s"


def test_a_trial_without_an_objective_shows_its_status():
    trial = Trial("kelpie-tune-1-002", "Failed", None, {}, None)
    assert describe_trial(1, trial).startswith("trial 1  Failed")


@pytest.mark.parametrize(("text", "shown"), [("64", "64"), ('"128"', "128"), ("1e-09", "1e-09"), ("sgd", "sgd")])
def test_numbers_are_shortened_and_words_kept(text, shown):
    assert short_number(text) == shown
