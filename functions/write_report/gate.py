"""The gate: its checks, and the model beside the one that served when it was judged."""

from typing import Any

from charts import Table
from markupsafe import Markup
from run import Run
from wording import figures, percent


def section(run: Run) -> dict[str, Any] | None:
    verdict = run.document("verdict")
    if not verdict:
        return None
    return {
        "verdict": verdict["verdict"],
        "sentence": verdict["reason"],
        "checks": Table(
            ("check", "result", "value", "threshold", "in words"),
            [
                (
                    check["name"],
                    Markup('<span class="{}">{}</span>').format(
                        *(("good", "passed") if check["passed"] else ("bad", "failed"))
                    ),
                    figures(check["value"]),
                    figures(check["threshold"]),
                    check["statement"],
                )
                for check in verdict["checks"]
            ],
        ),
        "beside": _beside(run),
        "comparison": _comparison(verdict.get("comparison") or {}),
    }


def _beside(run: Run) -> Table | None:
    """Return both models' own evaluations. Each was scored on the test split of its run, which may differ."""
    challenger, champion = run.document("evaluation"), run.document("champion")
    if not challenger or not champion:
        return None
    kinds = [
        ("run", lambda one: one["run_id"]),
        ("accuracy", lambda one: percent(one["accuracy"], 2)),
        ("top-5 accuracy", lambda one: percent(one["top5_accuracy"], 2)),
        ("macro F1", lambda one: figures(one["macro_f1"])),
        ("calibration error", lambda one: figures(one["calibration_error"])),
        ("images", lambda one: figures(one["images"])),
        ("same images", lambda one: "yes" if one["data_digest"] == challenger["data_digest"] else "no"),
    ]
    rows = [(name, value(champion), value(challenger)) for name, value in kinds]
    return Table(("", "champion", "challenger"), rows)


def _comparison(comparison: dict[str, Any]) -> Table | None:
    """Return the paired test, where there was one: both on the images that neither was trained on."""
    if comparison.get("case") != "compared":
        return None
    rows = [
        ("images compared", figures(comparison["images"])),
        ("left out, since the champion was trained on them", figures(comparison["left_out"])),
        ("only the challenger is right", figures(comparison["wins"])),
        ("only the champion is right", figures(comparison["losses"])),
        ("change of accuracy", f"{100 * comparison['difference']:+.2f} points"),
        ("no less than", f"{100 * comparison['lower_bound']:+.2f} points"),
        ("p-value (McNemar's exact test)", figures(comparison["p_value"])),
    ]
    return Table(("on the same images", ""), rows)
