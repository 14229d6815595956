"""The training jobs that a run really made, as SageMaker tells of them: retrained, redriven and adopted ones too."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

STEPS = ("prepare", "train", "optimize", "evaluate")
"""Those of tuning are in the leaderboard."""


@dataclass(frozen=True)
class Job:
    step: str
    name: str
    billable_seconds: int
    """Of all its instances together."""


def jobs_of(sagemaker: Any, plan: dict[str, Any]) -> Iterator[Job]:
    """Yield the jobs of each step, the first one first."""
    for step in STEPS:
        unnumbered, _, _ = plan["names"][step].rpartition("-")
        pages = sagemaker.get_paginator("list_training_jobs").paginate(
            NameContains=unnumbered, SortBy="CreationTime", SortOrder="Ascending"
        )
        for name in [job["TrainingJobName"] for page in pages for job in page["TrainingJobSummaries"]]:
            described = sagemaker.describe_training_job(TrainingJobName=name)
            instances = described["ResourceConfig"]["InstanceCount"]
            # https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeTrainingJob.html: none until it ends
            yield Job(step, name, instances * described.get("BillableTimeInSeconds", 0))
