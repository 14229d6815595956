"""Search strategies of a hyperparameter tuning job: AWS's ParameterRanges in, the values of the next trial out.

Random, Bayesian (tree-structured Parzen estimator, Bergstra et al., NeurIPS 2011, by Optuna), Grid, and Hyperband,
whose values are random and whose trials `worse_than_its_bracket` ends. A search is asked for a trial's values and told
its objective; trials may be asked while others still run. Not thread-safe.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

STRATEGIES = ("Random", "Bayesian", "Grid", "Hyperband")


class RangeError(ValueError):
    """Ranges that cannot be searched; the message names the parameter, the value seen and what was expected."""


@dataclass(frozen=True)
class Trial:
    """number counts from 0; values are the strings that SageMaker hands to the training job."""

    number: int
    values: dict[str, str]


class Search:
    """max_trials: None for all combinations of a Grid, else the MaxNumberOfTrainingJobs of the tuning job.

    Values that were tried are not tried again as long as the space has others. resources: Hyperband's least and most
    epochs of a trial. Raises RangeError.
    """

    def __init__(
        self,
        strategy: str,
        ranges: Mapping[str, Any],
        objective_type: str,
        max_trials: int | None,
        seed: int | None,
        resources: tuple[int, int] | None = None,
    ):
        parameters = parse_ranges(ranges)
        self.names = frozenset(parameter.name for parameter in parameters)
        combinations = math.prod(parameter.combinations() for parameter in parameters)
        self._grid = _grid(parameters) if strategy == "Grid" else None
        if self._grid is not None:
            if max_trials is not None and max_trials != combinations:
                raise RangeError(
                    f"MaxNumberOfTrainingJobs {max_trials} is not the number of combinations of a Grid search, "
                    f"{int(combinations)}. Leave it out or set it to that number."
                )
            self.max_trials = int(combinations)
            return
        if max_trials is None:
            raise RangeError(f"ResourceLimits.MaxNumberOfTrainingJobs is required for strategy {strategy}.")
        if combinations < max_trials:
            raise RangeError(  # AWS's wording: amazon-sagemaker-operator-for-k8s issue 123
                "You don't have enough combinations of hyperparameter ranges. The total number of hyperparameter "
                f"combinations for the provided ranges [{combinations}] must be equal or greater than the value of "
                f"MaxNumberOfJobs, [{max_trials}]. Provide additional ranges."
            )
        self.max_trials = max_trials
        self._parameters = parameters
        self._study = _study(strategy, len(parameters), objective_type, seed, resources)
        self._trials: dict[int, Any] = {}
        self._tried: set[tuple[Any, ...]] = set()

    def ask(self) -> Trial:
        if self._grid is not None:
            return next(self._grid)
        trial = self._ask_untried()
        self._tried.add(tuple(trial.params.values()))
        number = len(self._trials)
        self._trials[number] = trial
        return Trial(number, {p.name: p.format(trial.params[p.name]) for p in self._parameters})

    def tell(self, number: int, objective: float | None) -> None:
        """objective: None for a trial that failed or was stopped."""
        if self._grid is not None:
            return
        from optuna.trial import TrialState

        if objective is None:
            self._study.tell(self._trials[number], state=TrialState.FAIL)
        else:
            self._study.tell(self._trials[number], objective)

    def worse_than_its_bracket(self, number: int, epoch: int, objective: float) -> bool:
        """Hyperband: whether a running trial is not among those that go on after this epoch, counted from 1."""
        trial = self._trials[number]
        trial.report(objective, epoch)
        return trial.should_prune()

    def learn(self, values: Mapping[str, str], objective: float) -> None:
        """Take in a trial of another search: all its hyperparameters. One outside these ranges teaches nothing."""
        import optuna

        params = {parameter.name: parameter.parse(values.get(parameter.name)) for parameter in self._parameters}
        if None in params.values():
            return
        distributions = {parameter.name: parameter.distribution() for parameter in self._parameters}
        self._study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=objective))

    def _ask_untried(self) -> Any:
        from optuna.trial import TrialState

        distributions = {parameter.name: parameter.distribution() for parameter in self._parameters}
        for _ in range(20):
            trial = self._study.ask(distributions)
            if tuple(trial.params.values()) not in self._tried:
                return trial
            self._study.tell(trial, state=TrialState.FAIL)
        # Only a space of few combinations, mostly tried, comes here.
        choices = [parameter.choices() for parameter in self._parameters]
        untried = next(values for values in itertools.product(*choices) if values not in self._tried)
        self._study.enqueue_trial(dict(zip(distributions, untried, strict=True)))
        return self._study.ask(distributions)


def parse_ranges(ranges: Mapping[str, Any]) -> list[Parameter]:
    """The searched parameters of a ParameterRanges structure. Raises RangeError."""
    parameters: list[Parameter] = []
    for member in ranges.get("ContinuousParameterRanges", []):
        parameters.append(_numeric(member, float))
    for member in ranges.get("IntegerParameterRanges", []):
        parameters.append(_numeric(member, int))
    for member in ranges.get("CategoricalParameterRanges", []):
        parameters.append(Categorical(member["Name"], tuple(dict.fromkeys(member["Values"]))))
    names = [parameter.name for parameter in parameters]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise RangeError(f"Hyperparameters {repeated} have more than one range: each may have one.")
    if not parameters:
        raise RangeError("The tuning job has no hyperparameter ranges: give at least one.")
    return parameters


@dataclass(frozen=True)
class Numeric:
    """scaling: Linear, Logarithmic (searched in log x) or ReverseLogarithmic (in log(1 - x), 0 <= x < 1)."""

    name: str
    low: float
    high: float
    scaling: str
    integer: bool

    def combinations(self) -> float:
        return self.high - self.low + 1 if self.integer else (math.inf if self.high > self.low else 1)

    def choices(self) -> Sequence[float]:
        return range(int(self.low), int(self.high) + 1) if self.integer else (self.low,)

    def distribution(self) -> Any:
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.integer:
            return IntDistribution(int(self.low), int(self.high), log=self.scaling == "Logarithmic")
        if self.scaling == "ReverseLogarithmic":
            return FloatDistribution(1 - self.high, 1 - self.low, log=True)
        return FloatDistribution(self.low, self.high, log=self.scaling == "Logarithmic")

    def format(self, value: Any) -> str:
        """A JSON number that reads back as the very same value: the toolkit decodes hyperparameters as JSON."""
        if self.integer:
            return str(int(value))
        if self.scaling == "ReverseLogarithmic":
            value = 1 - value
        return repr(min(max(float(value), self.low), self.high))

    def parse(self, text: str | None) -> float | None:
        """The value in the distribution that a string of the kind of `format` means; None if it is not in the range."""
        try:
            value = (int if self.integer else float)(text or "")
        except ValueError:
            return None
        if not self.low <= value <= self.high:
            return None
        return 1 - value if self.scaling == "ReverseLogarithmic" else value


@dataclass(frozen=True)
class Categorical:
    """The values are handed over as they are: the Python SDK quotes them as JSON in the ranges, SageMaker does not."""

    name: str
    values: tuple[str, ...]

    def combinations(self) -> float:
        return len(self.values)

    def choices(self) -> Sequence[str]:
        return self.values

    def distribution(self) -> Any:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.values)

    def format(self, value: Any) -> str:
        return value

    def parse(self, text: str | None) -> str | None:
        return text if text in self.values else None


Parameter = Numeric | Categorical


def _numeric(member: Mapping[str, Any], number: type[float] | type[int]) -> Numeric:
    name, scaling, kind = member["Name"], member.get("ScalingType", "Auto"), "an integer" if number is int else "finite"
    try:
        low, high = number(member["MinValue"]), number(member["MaxValue"])
    except ValueError as error:
        raise RangeError(f"The range of {name} is not {kind}: {member['MinValue']} to {member['MaxValue']}.") from error
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise RangeError(f"The range of {name} is {low} to {high}: MinValue must be finite and at most MaxValue.")
    if scaling == "Auto":
        # AWS does not say how it chooses. Two decades or more are searched by their logarithm.
        scaling = "Logarithmic" if low > 0 and high / low >= 100 else "Linear"
    if scaling == "Logarithmic" and low <= 0:
        raise RangeError(f"The range of {name} begins at {low}: Logarithmic scaling needs values greater than 0.")
    if scaling == "ReverseLogarithmic" and (number is int or low < 0 or high >= 1):
        raise RangeError(
            f"The range of {name} is {low} to {high}: ReverseLogarithmic scaling needs a continuous range "
            "in 0 <= x < 1."
        )
    return Numeric(name, low, high, scaling, number is int)


def _grid(parameters: list[Parameter]) -> Any:
    numeric = [parameter.name for parameter in parameters if isinstance(parameter, Numeric)]
    if numeric:
        raise RangeError(f"Grid search takes categorical ranges only; {numeric} are numeric.")
    names = [parameter.name for parameter in parameters]
    rows = itertools.product(*(parameter.values for parameter in parameters if isinstance(parameter, Categorical)))
    return (Trial(number, dict(zip(names, row, strict=True))) for number, row in enumerate(rows))


def _study(
    strategy: str, dimensions: int, objective_type: str, seed: int | None, resources: tuple[int, int] | None
) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler: optuna.samplers.BaseSampler
    if strategy in ("Random", "Hyperband"):
        sampler = optuna.samplers.RandomSampler(seed=seed)
    else:
        # Optuna's ten random trials first are a whole tuning job for us: as many as there are dimensions, and one.
        # constant_liar counts trials that still run as bad, so that parallel trials spread out.
        sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=dimensions + 1, constant_liar=True)
    least, most = resources or (1, 1)
    return optuna.create_study(
        study_name="tuning",  # which decides a trial's bracket
        sampler=sampler,
        pruner=optuna.pruners.HyperbandPruner(least, most) if resources else optuna.pruners.NopPruner(),
        direction="minimize" if objective_type == "Minimize" else "maximize",
    )
