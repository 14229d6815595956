"""What a run can cost at most, from prices.json: each job at its whole max_job_seconds, on all of its instances.

A guess at how long jobs will take would promise more than anyone knows; SageMaker stops a job at max_job_seconds, so
this bound holds for every training that the debugger may ask for. Not in it: a redrive, which may run again a job that
had ended without success, and the two minutes in which a job that is stopped saves what it has. The prices are list
prices (https://aws.amazon.com/sagemaker/ai/pricing/) of the day and the region that the table names: other regions
differ, and what an account has agreed with AWS is not in it.
"""

import functools
import json
from pathlib import Path
from typing import Any


class BudgetExceeded(Exception):
    """The run could cost more than its budget. The message says which settings would lower that."""


def estimate(run_input: dict[str, Any]) -> dict[str, Any]:
    """Return the plan's cost, contracts/plan.schema.json. run_input: completed."""
    prices, instances = _prices(), run_input["instances"]
    optimised = ("optimize",) if run_input["serving"]["variant"] != "float32" else ()
    jobs_of = {"tune": run_input["tuning"]["max_jobs"], "train": 1 + run_input["debugger"]["max_retrains"]}
    instances_of = {"train": run_input["training"]["instance_count"]}
    jobs = [
        _most(step, instances[step], instances_of.get(step, 1), jobs_of.get(step, 1), run_input["max_job_seconds"])
        for step in ("prepare", "tune", "train", *optimised, "evaluate")
    ]
    known = [job["most_usd"] for job in jobs if job["most_usd"] is not None]
    hosting = prices["hosting"].get(instances["endpoint"])
    most_instances = max(run_input["serving"]["instance_count"], run_input["serving"]["max_instance_count"])
    return {
        "prices_as_of": prices["as_of"],
        "prices_region": prices["region"],
        "jobs": jobs,
        "most_usd": round(sum(known), 2) if len(known) == len(jobs) else None,
        "endpoint_usd_per_hour": hosting and round(hosting * most_instances, 4),
    }


def check_budget(cost: dict[str, Any], budget_usd: float | None) -> None:
    """Raise BudgetExceeded if the run could cost more, or if nobody knows what it costs."""
    if budget_usd is None:
        return
    unknown = sorted({job["instance_type"] for job in cost["jobs"] if job["usd_per_hour"] is None})
    if unknown:
        raise BudgetExceeded(
            f"budget_usd {budget_usd} cannot be held: the price table of {cost['prices_as_of']} does not have "
            f"{', '.join(unknown)}; choose other instances, or leave budget_usd out"
        )
    if cost["most_usd"] > budget_usd:
        dearest = max(cost["jobs"], key=lambda job: job["most_usd"])
        raise BudgetExceeded(
            f"the jobs can cost up to ${cost['most_usd']:.2f}, more than budget_usd {budget_usd}; most of it "
            f"{dearest['step']}: {dearest['jobs']} x {dearest['most_seconds']} s of "
            f"{dearest['instance_count']} x {dearest['instance_type']} at "
            f"${dearest['usd_per_hour']} an hour (list prices of {cost['prices_as_of']}, {cost['prices_region']}): "
            "lower max_job_seconds, tuning.max_jobs, training.instance_count or debugger.max_retrains, or choose "
            "smaller instances"
        )


def _most(step: str, instance_type: str, instance_count: int, jobs: int, seconds: int) -> dict[str, Any]:
    price = _prices()["training"].get(instance_type)
    return {
        "step": step,
        "instance_type": instance_type,
        "instance_count": instance_count,
        "jobs": jobs,
        "most_seconds": seconds,
        "usd_per_hour": price,
        "most_usd": None if price is None else round(jobs * instance_count * seconds / 3600 * price, 2),
    }


@functools.cache
def _prices() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("prices.json").read_text(encoding="utf-8"))
