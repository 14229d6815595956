"""The picture of `kelpie bench-endpoint`: throughput and latencies over the number of clients, the knee marked."""

from __future__ import annotations

from typing import Any

from kelpie import charts

COLOURS = {
    "--series-1": "#2f6fd0",
    "--series-2": "#c05a1f",
    "--text": "#1b2430",
    "--muted": "#566375",
    "--line": "#d5dbe4",
    "--bad": "#b3261e",
}
"""What the pages that hold charts say of them; a file of its own has to say it itself."""
LATENCIES = {"p50_ms": "p50", "p99_ms": "p99"}


def svg(document: dict[str, Any]) -> str:
    """Return the picture of bench.run's document, as a file that any browser shows."""
    levels = [level for level in document["levels"] if level["answered"]]
    knee = [{"clients": document["knee_clients"], "label": "knee"}]
    answered = [
        {"clients": level["clients"], "images a second": level["images_per_second"], "series": "images a second"}
        for level in levels
    ]
    waited = [
        {"clients": level["clients"], "milliseconds": level[name], "series": f"{series}, milliseconds"}
        for level in levels
        for name, series in LATENCIES.items()
    ]
    latencies = [f"{series}, milliseconds" for series in LATENCIES.values()]
    drawn_alike: dict[str, Any] = {"marks": knee, "points": True, "doublings": True, "from_zero": True}
    upper = charts.lines(answered, "clients", "images a second", series=["images a second"], **drawn_alike)
    lower = charts.lines(waited, "clients", "milliseconds", series=latencies, **drawn_alike)
    spec = {
        "vconcat": [{"title": "images a second", **upper}, {"title": "an answer takes", **lower}],
        "resolve": {"scale": {"color": "independent"}},
    }
    described = (
        f"{document['endpoint']}: {document['images_per_second']:.1f} images a second at its knee, "
        f"{document['knee_clients']} clients."
    )
    drawn = charts.draw(spec, described)
    style = ";".join(f"{name}:{value}" for name, value in COLOURS.items())
    head, _, rest = str(drawn).partition(">")
    return f'{head} style="background:#fff;{style}">{rest}\n'
