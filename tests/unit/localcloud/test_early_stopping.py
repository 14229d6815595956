"""The rules that stop trials, with plain numbers for their epochs."""

import pytest

from localcloud.sagemaker.early_stopping import Hyperband, MedianRule, resources
from localcloud.sagemaker.search import RangeError, Search

RANGES = {"ContinuousParameterRanges": [{"Name": "x", "MinValue": "0", "MaxValue": "1"}]}


@pytest.mark.parametrize(("objective_type", "sign"), [("Maximize", 1), ("Minimize", -1)])
def test_a_trial_worse_than_the_median_of_running_averages_is_stopped(objective_type, sign):
    rule = MedianRule(objective_type)
    assert not rule.stops(0, [sign * -9.0])  # nobody came before
    for first, second in ((2, 4), (4, 8), (6, 8)):  # running averages 3, 6, 7: the median is 6
        rule.ended([sign * first, sign * second])
    assert not rule.stops(3, [sign * 4])
    assert rule.stops(3, [sign * 3.9])
    assert not rule.stops(3, [sign * 4, sign * 6])
    assert rule.stops(3, [sign * 9, sign * 5.9])
    assert not rule.stops(3, [0, 0, sign * -9.0])  # no trial had a third epoch


def test_hyperband_ends_most_trials_early_and_lets_the_best_one_through():
    search = Search("Hyperband", RANGES, "Maximize", 27, 1, resources=(1, 9))
    rule = Hyperband(search, 9, {"epochs": "9"})
    epochs: dict[float, int] = {}
    for _ in range(27):
        trial = search.ask()
        x = float(trial.values["x"])
        last = next((n for n in range(1, 9) if rule.stops(trial.number, [x] * n)), 9)
        search.tell(trial.number, x)
        epochs[x] = last
    assert epochs[max(epochs)] == 9
    assert min(epochs.values()) == 1
    assert sum(epochs.values()) < 0.75 * 27 * 9


def test_hyperband_stops_nothing_before_its_least_resource():
    search = Search("Hyperband", RANGES, "Maximize", 20, 1, resources=(4, 9))
    rule = Hyperband(search, 9, {})
    for _ in range(20):
        trial = search.ask()
        assert not any(rule.stops(trial.number, [float(trial.values["x"])] * n) for n in (1, 2, 3))


def test_hyperband_stops_at_its_most_resource_only_what_plans_to_go_on():
    search = Search("Hyperband", RANGES, "Maximize", 2, 1, resources=(1, 4))
    assert Hyperband(search, 4, {"epochs": "8"}).stops(0, [0.5] * 4)
    assert Hyperband(search, 4, {"epochs": "8"}).finished(4)
    assert not Hyperband(search, 4, {"epochs": "4"}).stops(0, [0.5] * 4)


def test_most_resource_is_found_among_the_static_hyperparameters():
    assert resources({}, {"num_epochs": '"12"'}) == (1, 12)
    given = {"StrategyConfig": {"HyperbandStrategyConfig": {"MinResource": 2, "MaxResource": 5}}}
    assert resources(given, {"epochs": "12"}) == (2, 5)
    with pytest.raises(RangeError, match="or one of the static hyperparameters epochs, numepochs"):
        resources({}, {"epochs": "many"})
    with pytest.raises(RangeError, match="MinResource 7 and MaxResource 5"):
        resources({"StrategyConfig": {"HyperbandStrategyConfig": {"MinResource": 7}}}, {"epochs": "5"})
