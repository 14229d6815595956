"""What the jobs cost: the time that SageMaker bills of each, at the prices of the plan."""

from run import Run

STATES = {
    "prepare": "PrepareDataset",
    "tune": "TuneHyperparameters",
    "train": "TrainModel",
    "optimize": "OptimizeModel",
    "evaluate": "EvaluateModel",
}
SECONDS_PER_HOUR = 3600


def costs(run: Run) -> dict[str, float | None]:
    """Return what the jobs of each state have cost so far, in dollars; None where the plan's table has no price.

    Empty for a plan without prices.
    """
    spent = {}
    for planned in run.plan.get("cost", {}).get("jobs", []):
        step, price = planned["step"], planned["usd_per_hour"]
        seconds = (
            _trials(run) if step == "tune" else [job.billable_seconds for job in run.left.jobs if job.step == step]
        )
        if seconds:
            spent[STATES[step]] = None if price is None else sum(seconds) / SECONDS_PER_HOUR * price
    return spent


def _trials(run: Run) -> list[float]:
    return [trial["seconds"] or 0 for trial in run.document("leaderboard").get("trials", [])]
