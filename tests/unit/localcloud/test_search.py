"""Search strategies: the values of trials, without a service or a process."""

import json
import math
import statistics

import pytest

from localcloud.sagemaker.search import RangeError, Search

SEED_RANGES = {
    "ContinuousParameterRanges": [
        {"Name": "learning_rate", "MinValue": "1e-5", "MaxValue": "0.1", "ScalingType": "Logarithmic"},
        {"Name": "eps", "MinValue": "1e-9", "MaxValue": "1e-8", "ScalingType": "Logarithmic"},
    ],
    "CategoricalParameterRanges": [{"Name": "batch_size", "Values": ["64", '"128"']}],
}


def continuous(low, high, scaling="Auto"):
    return {
        "ContinuousParameterRanges": [
            {"Name": "x", "MinValue": str(low), "MaxValue": str(high), "ScalingType": scaling}
        ]
    }


def drawn(ranges, count=400, strategy="Random", seed=1):
    search = Search(strategy, ranges, "Maximize", count, seed)
    return [search.ask().values for _ in range(count)]


def test_values_are_json_numbers_in_range_that_read_back_unchanged():
    for values in drawn(SEED_RANGES):
        assert 1e-5 <= json.loads(values["learning_rate"]) <= 0.1
        assert 1e-9 <= json.loads(values["eps"]) <= 1e-8
        assert repr(float(values["eps"])) == values["eps"]
        assert values["batch_size"] in {"64", '"128"'}


@pytest.mark.parametrize(
    ("low", "high", "scaling", "share_in_lower_half"),
    [
        (0.0, 1.0, "Linear", 0.5),
        (1e-4, 1.0, "Logarithmic", 0.925),  # log(0.5 / 1e-4) / log(1 / 1e-4)
        (1e-4, 1.0, "Auto", 0.925),
        (0.1, 1.0, "Auto", 0.5),
        (0.0, 0.9999, "ReverseLogarithmic", 0.075),
    ],
)
def test_scaling_decides_where_trials_fall(low, high, scaling, share_in_lower_half):
    values = [float(v["x"]) for v in drawn(continuous(low, high, scaling))]
    assert min(values) >= low
    assert max(values) <= high
    assert statistics.mean(v < (low + high) / 2 for v in values) == pytest.approx(share_in_lower_half, abs=0.08)


def test_integers_include_both_ends():
    ranges = {"IntegerParameterRanges": [{"Name": "layers", "MinValue": "2", "MaxValue": "5"}]}
    assert sorted(v["layers"] for v in drawn(ranges, 4)) == ["2", "3", "4", "5"]


@pytest.mark.parametrize("strategy", ["Random", "Bayesian"])
def test_a_finite_space_is_searched_without_repeats(strategy):
    ranges = {
        "IntegerParameterRanges": [{"Name": "layers", "MinValue": "1", "MaxValue": "3"}],
        "CategoricalParameterRanges": [{"Name": "optimizer", "Values": ["adamw", "sgd"]}],
    }
    assert len({tuple(v.items()) for v in drawn(ranges, 6, strategy)}) == 6


@pytest.mark.parametrize("strategy", ["Random", "Bayesian"])
def test_the_same_seed_draws_the_same_trials(strategy):
    assert drawn(SEED_RANGES, 5, strategy, seed=7) == drawn(SEED_RANGES, 5, strategy, seed=7)
    assert drawn(SEED_RANGES, 5, strategy, seed=7) != drawn(SEED_RANGES, 5, strategy, seed=8)


def loss_of_later_trials(strategy, objective_type, seed, parallel):
    """Mean loss of the last 12 of 24 trials on a bowl in log space, asked `parallel` at a time."""
    search = Search(strategy, SEED_RANGES, objective_type, 24, seed)
    losses = []
    for _ in range(24 // parallel):
        trials = [search.ask() for _ in range(parallel)]
        for trial in trials:
            loss = (math.log10(float(trial.values["learning_rate"])) + 3) ** 2 + (trial.values["batch_size"] == "64")
            losses.append(loss)
            search.tell(trial.number, loss if objective_type == "Minimize" else -loss)
    return statistics.mean(losses[12:])


@pytest.mark.parametrize("objective_type", ["Minimize", "Maximize"])
@pytest.mark.parametrize("parallel", [1, 4])
def test_bayesian_learns_from_what_it_is_told(objective_type, parallel):
    def mean(strategy):
        return statistics.mean(loss_of_later_trials(strategy, objective_type, seed, parallel) for seed in range(5))

    assert mean("Bayesian") < mean("Random") / 2


def test_what_other_searches_found_is_used_from_the_first_trial_on():
    def first_trial(seed, taught):
        search = Search("Bayesian", continuous(0, 10), "Maximize", 1, seed)
        for step in range(taught):
            search.learn({"x": str(step / 3), "other": "1"}, -abs(step / 3 - 2))
        return float(search.ask().values["x"])

    def distance(taught):
        return statistics.mean(abs(first_trial(seed, taught) - 2) for seed in range(8))

    assert distance(30) < 0.5 * distance(0)


@pytest.mark.parametrize("values", [{}, {"x": "11"}, {"x": "many"}])
def test_what_lies_outside_the_ranges_teaches_nothing(values):
    alone, taught = (Search("Random", continuous(0, 10), "Maximize", 1, 7) for _ in range(2))
    taught.learn(values, 1.0)
    assert taught.ask() == alone.ask()


def test_a_failed_trial_does_not_end_the_search():
    search = Search("Bayesian", SEED_RANGES, "Minimize", 20, 0)
    for _ in range(20):
        trial = search.ask()
        search.tell(trial.number, None if trial.number % 2 else 1.0)
    assert trial.number == 19


def test_grid_is_every_combination_in_order():
    ranges = {
        "CategoricalParameterRanges": [{"Name": "a", "Values": ["1", "2"]}, {"Name": "b", "Values": ["x", "y", "z"]}]
    }
    search = Search("Grid", ranges, "Maximize", None, None)
    assert search.max_trials == 6
    trials = [search.ask() for _ in range(6)]
    assert trials[0].values == {"a": "1", "b": "x"}
    assert trials[5].values == {"a": "2", "b": "z"}
    assert len({tuple(t.values.items()) for t in trials}) == 6


@pytest.mark.parametrize(
    ("strategy", "ranges", "max_trials", "message"),
    [
        ("Random", {}, 3, "no hyperparameter ranges"),
        ("Random", continuous("low", 1), 3, "range of x is not finite"),
        ("Random", continuous(2, 1), 3, "MinValue must be finite and at most MaxValue"),
        ("Random", continuous(0, 1, "Logarithmic"), 3, "Logarithmic scaling needs values greater than 0"),
        ("Random", continuous(0, 1, "ReverseLogarithmic"), 3, "0 <= x < 1"),
        ("Random", continuous(0, 1), None, "MaxNumberOfTrainingJobs is required"),
        ("Grid", continuous(0, 1), None, "categorical ranges only"),
        ("Grid", {"CategoricalParameterRanges": [{"Name": "a", "Values": ["1", "2"]}]}, 3, "number of combinations"),
        (
            "Bayesian",
            {"IntegerParameterRanges": [{"Name": "n", "MinValue": "1", "MaxValue": "3"}]},
            10,
            r"combinations for the provided ranges \[3.*MaxNumberOfJobs, \[10\]",
        ),
        (
            "Random",
            {
                "IntegerParameterRanges": [{"Name": "n", "MinValue": "1", "MaxValue": "9"}],
                "CategoricalParameterRanges": [{"Name": "n", "Values": ["1"]}],
            },
            3,
            "more than one range",
        ),
    ],
)
def test_ranges_that_cannot_be_searched_are_refused(strategy, ranges, max_trials, message):
    with pytest.raises(RangeError, match=message):
        Search(strategy, ranges, "Maximize", max_trials, None)
