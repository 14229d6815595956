"""What SageMaker makes of a process: its name, its instances, its configuration and, when it fails, its reason."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from allocator import keep_freed_memory

FAILURE_CHARACTERS = 1024  # SageMaker keeps this much of a job's FailureReason


class JobError(Exception):
    """Base of every failure that the caller of a job can repair; the message says how."""


def run(work: Callable[[], None]) -> None:
    """Do a job's work. When it fails, leave the reason where SageMaker reads it, and exit with 1."""
    keep_freed_memory()
    try:
        work()
    except JobError as error:
        _write_failure(error)
        sys.exit(f"{type(error).__name__}: {error}")
    except Exception as error:
        _write_failure(error)
        raise


def fail_at_once(error: JobError) -> NoReturn:
    """End the process from any thread, with its reason where SageMaker reads it: the main one may hang."""
    _write_failure(error)
    print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
    os._exit(1)


def check_instances() -> None:
    """Raise JobError if the job was given several instances, and torchrun did not start it on each of them."""
    hosts = json.loads(os.environ.get("SM_HOSTS", "[]"))
    if len(hosts) > 1 and "WORLD_SIZE" not in os.environ:
        raise JobError(
            f"the job has {len(hosts)} instances, but nothing that joins them: set InstanceCount to 1, or the "
            "hyperparameter sagemaker_torch_distributed_enabled to true"
        )


def job_name(script: str) -> str:
    """Return the name of the training job, or the script's by hand."""
    return os.environ.get("TRAINING_JOB_NAME", script)


def debug_hook_configuration() -> Path | None:
    """Return SageMaker's debughookconfig.json, or None where the job has none."""
    folder = os.environ.get("SM_INPUT_CONFIG_DIR")
    path = Path(folder, "debughookconfig.json") if folder else None
    return path if path and path.is_file() else None


def _write_failure(error: Exception) -> None:
    folder = os.environ.get("SM_OUTPUT_DIR")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, "failure").write_text(f"{type(error).__name__}: {error}"[:FAILURE_CHARACTERS])
