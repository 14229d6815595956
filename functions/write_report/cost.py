"""What the jobs cost: the time that they took, at the prices of the plan."""

from collections.abc import Iterator
from dataclasses import dataclass

from run import Run

STATES = {
    "prepare": "PrepareDataset",
    "tune": "TuneHyperparameters",
    "train": "TrainModel",
    "optimize": "OptimizeModel",
    "evaluate": "EvaluateModel",
}
SECONDS_PER_HOUR = 3600


@dataclass(frozen=True)
class Cost:
    state: str
    instance_type: str
    seconds: float
    """Of all its jobs together: trials run side by side."""
    usd: float | None
    """Null where the plan's table has no price."""


def costs(run: Run) -> list[Cost]:
    """Return what each state with jobs has cost so far, an estimate; empty for a plan without prices."""
    return list(_costs(run))


def _costs(run: Run) -> Iterator[Cost]:
    taken = {state.name: state.seconds for state in run.course.states}
    trials = [trial["seconds"] or 0 for trial in run.document("leaderboard").get("trials", [])]
    for job in run.plan.get("cost", {}).get("jobs", []):
        state = STATES.get(job["step"], job["step"])
        seconds = sum(trials) if job["step"] == "tune" and trials else taken.get(state)
        if seconds is not None:
            price = job["usd_per_hour"]
            usd = None if price is None else seconds / SECONDS_PER_HOUR * price
            yield Cost(state, job["instance_type"], seconds, usd)
