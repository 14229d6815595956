"""The variants that could serve the model: what each costs, what it gives, and which one was chosen."""

from typing import Any

from charts import SERIES, Figure, Table, draw
from markupsafe import Markup
from run import Run
from wording import counted, figures, percent

BYTES_PER_MB = 1e6


def section(run: Run) -> dict[str, Any] | None:
    document = run.document("variants")
    if not document:
        return None
    variants = document["variants"]
    measured = [one for one in variants if one["measured"]]
    where = f"Measured on {document['processor']}, {counted(document['cores'], 'core')}; scored on "
    return {
        "sentence": document["reason"],
        "where": f"{where}{counted(document['images'], 'image')} of the {document['split']} split.",
        "figures": [_trade(measured, document["chosen"])] if len(measured) > 1 else [],
        "variants": Table(
            (
                "variant",
                "result",
                "accuracy",
                "like float32",
                "calibration error",
                "ms an image",
                "ms of a core",
                "images a second",
                "MB of memory",
                "s to start",
                "MB",
                "reason",
            ),
            [_row(one, document["chosen"]) for one in variants],
        ),
    }


def _row(one: dict[str, Any], chosen: str) -> tuple[Any, ...]:
    result = (
        ("good", "chosen") if one["variant"] == chosen else ("", "accepted") if one["accepted"] else ("bad", "refused")
    )
    said = Markup('<span class="{}">{}</span>').format(*result)
    found = one["measured"]
    if not found:
        return one["variant"], said, *["–"] * 9, one["reason"]
    return (
        one["variant"],
        said,
        percent(found["accuracy"], 2),
        percent(found["agreement"]),
        figures(found["calibration_error"]),
        figures(found["latency_ms"]),
        figures(found["core_ms"]),
        figures(found["images_per_second"]),
        figures(round(found["memory_mb"])),
        figures(found["start_seconds"]),
        figures(round(found["size_bytes"] / BYTES_PER_MB, 1)),
        one["reason"],
    )


def _trade(measured: list[dict[str, Any]], chosen: str) -> Figure:
    rows = [
        {"variant": one["variant"], "ms": one["measured"]["core_ms"], "accuracy": one["measured"]["accuracy"]}
        for one in measured
    ]
    scale = {"zero": False, "padding": 16}
    fill = {"condition": {"test": {"field": "variant", "equal": chosen}, "value": SERIES[1]}, "value": SERIES[0]}
    spec = {
        "data": {"values": rows},
        "encoding": {
            "x": {
                "field": "ms",
                "type": "quantitative",
                "title": "milliseconds of a core an image",
                "scale": {"padding": 40},
            },
            "y": {
                "field": "accuracy",
                "type": "quantitative",
                "title": None,
                "scale": scale,
                "axis": {"format": ".1%"},
            },
        },
        "layer": [
            {"mark": {"type": "point", "size": 70}, "encoding": {"fill": fill}},
            {"mark": {"type": "text", "dy": -12}, "encoding": {"text": {"field": "variant"}}},
        ],
    }
    cheapest = min(rows, key=lambda row: row["ms"])
    description = (
        f"Accuracy by processor time an image: {cheapest['variant']} needs least, {figures(cheapest['ms'])} ms."
    )
    return Figure(
        "Accuracy and price of an answer", description, draw(spec, description), note=f"Orange: {chosen} serves."
    )
