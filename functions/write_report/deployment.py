"""The deployment: what the endpoint runs, and whether it answers as the evaluation did."""

from typing import Any

from charts import Table
from run import Run
from wording import counted, figures, percent


def section(run: Run) -> dict[str, Any] | None:
    verification = run.document("verification")
    if not verification:
        return None
    answers = verification["answers"]
    alike = sum(answer["matches"] for answer in answers)
    times = sorted(answer["milliseconds"] for answer in answers)
    by = ", ".join(sorted({answer["variant"] for answer in answers}))
    said = f"The endpoint {verification['endpoint']} gave the evaluation's answer on {alike} of "
    said += f"{counted(len(answers), 'image')}, by {by}"
    if times:
        said += f", half of them within {figures(times[len(times) // 2])} ms"
    if latency := verification.get("latency_milliseconds"):
        said += f", none later than {figures(latency['slowest'])} ms, where {figures(latency['most'])} were allowed"
    rows = [
        (
            answer["path"],
            f"{answer['expected']} {percent(answer['expected_probability'])}",
            f"{answer['answered']} {percent(answer['answered_probability'])}",
            "yes" if answer["matches"] else "no",
            figures(answer["milliseconds"]),
        )
        for answer in answers
    ]
    return {
        "sentence": f"{said}.",
        "verified": verification["verified"],
        "endpoint": verification["endpoint"],
        "configuration": verification["endpoint_config"],
        "instance": run.plan.get("instances", {}).get("endpoint"),
        "answers": Table(("image", "evaluation", "endpoint", "same", "ms"), rows),
    }
