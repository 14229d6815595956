"""What Step Functions says of a failure, as a name and a sentence."""

import json
import re
from dataclasses import dataclass
from typing import Any

LONGEST_CAUSE = 4_000
SUFFIX_OF = {"States.TaskFailed": "Failed", "States.Timeout": "TimedOut"}
JOB_NAMES = ("TrainingJobName", "HyperParameterTuningJobName")


@dataclass(frozen=True)
class Failure:
    state: str
    error: str
    cause: str
    job: str | None = None
    """The job that failed, if it was one."""


def explain(raw: dict[str, Any]) -> Failure:
    """Return a failure whose error names what happened and whose cause is readable.

    raw: Error and Cause as a Catch gets them, State, and RollBack where the way back failed as well. A job's own
    reason stands in the FailureReason of the description that `.sync` gives as Cause; a function's in its errorMessage.
    """
    error = raw["Error"]
    if error in SUFFIX_OF:
        error = f"{raw['State']}{SUFFIX_OF[error]}"
    cause = _sentence(raw["Cause"]) or f"{raw['State']} ended with {raw['Error']}"
    if raw.get("RollBack"):
        cause = f"{cause[: LONGEST_CAUSE // 2]} The rollback did not succeed: {raw['RollBack']}"
    return Failure(raw["State"], error, cause[:LONGEST_CAUSE], _job(raw["Cause"]))


def _job(cause: str) -> str | None:
    found = re.search(r'"(?:TrainingJobName|HyperParameterTuningJobName)":\s*"([\w-]+)"|\bjob ([\w-]+) ended\b', cause)
    return next(filter(None, found.groups())) if found else None


def _sentence(cause: str) -> str:
    try:
        parsed = json.loads(cause)
    except ValueError:
        # Step Functions cuts a Cause at 32,768 characters, in the middle of a description if need be.
        found = re.search(r'"(?:FailureReason|errorMessage)":\s*("(?:[^"\\]|\\.)*")', cause)
        return json.loads(found.group(1)) if found else cause.strip()
    if not isinstance(parsed, dict):
        return cause.strip()
    if "errorMessage" in parsed:
        return str(parsed["errorMessage"])
    job = next((parsed[key] for key in JOB_NAMES if key in parsed), None)
    if job is None:
        return cause.strip()
    status = parsed.get("TrainingJobStatus") or parsed.get("HyperParameterTuningJobStatus")
    reason = parsed.get("FailureReason") or parsed.get("SecondaryStatus", "no reason given")
    return f"The job {job} ended {status}: {reason}"
