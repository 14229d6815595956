"""Charts as SVG: specifications in Vega-Lite, drawn by vl-convert, which holds Vega and needs no browser or network.

Colours are the page's CSS variables, so that one drawing is right in light, in dark and on paper. A figure has its
description as accessible name, and its numbers as a table beside it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

WIDTH_PX, HEIGHT_PX = 380, 210
NUMBER = re.compile(r"\$?[+-]?[\d.\u202f]+(e[+-]?\d+)?(\s?(%|s|ms|min|points))?|\d+\sh \d+\smin|–")
SERIES = tuple(f"var(--series-{number})" for number in range(1, 7))
TEXT, MUTED, LINE = "var(--text)", "var(--muted)", "var(--line)"
BAD = "var(--bad)"

CONFIG = {
    # The drawing as a whole has a name: what is in it need not be spoken of mark by mark.
    "aria": False,
    "mark": {"aria": False},
    "background": None,
    "padding": {"left": 14, "right": 14, "top": 4, "bottom": 4},
    "font": "system-ui, sans-serif",
    "view": {"stroke": None, "discreteWidth": WIDTH_PX, "continuousWidth": WIDTH_PX, "continuousHeight": HEIGHT_PX},
    "axis": {
        "aria": False,
        "domainColor": LINE,
        "gridColor": LINE,
        "gridOpacity": 0.6,
        "labelColor": MUTED,
        "labelFontSize": 11,
        "labelLimit": 170,
        "tickColor": LINE,
        "titleColor": MUTED,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
    },
    "axisX": {"grid": False},
    "axisY": {"domain": False, "ticks": False},
    "legend": {
        "aria": False,
        "labelColor": TEXT,
        "labelFontSize": 11,
        "labelLimit": 200,
        "orient": "top",
        "title": None,
        "columnPadding": 26,
    },
    "bar": {"fill": SERIES[0]},
    "line": {"strokeWidth": 2},
    "point": {"filled": True, "size": 45},
    "text": {"fill": TEXT, "fontSize": 11},
}


@dataclass(frozen=True)
class Table:
    head: Sequence[str]
    rows: Sequence[Sequence[Any]]
    more: int = 0
    """Rows that the document has beyond these."""

    @property
    def numeric(self) -> set[int]:
        """Return the columns that hold numbers, or nothing."""
        columns = list(enumerate(zip(*self.rows, strict=True)))
        return {index for index, cells in columns if index and all(map(_is_number, cells)) and set(cells) != {"–"}}


@dataclass(frozen=True)
class Figure:
    title: str
    description: str
    """What it shows, in a sentence: the drawing's accessible name."""
    svg: Markup
    table: Table | None = None
    wide: bool = False
    note: str = ""


def _is_number(cell: Any) -> bool:
    return not isinstance(cell, Markup) and bool(NUMBER.fullmatch(str(cell)))


def draw(spec: dict[str, Any], description: str) -> Markup:
    """Return an SVG element named by its description. Nothing is fetched: the specification holds its data."""
    import vl_convert  # 84 MB that only a chart needs

    svg = vl_convert.vegalite_to_svg({"config": CONFIG, **spec}, allowed_base_urls=[])
    attributes = Markup('<svg role="img" aria-label="{}" ').format(description)
    return attributes + Markup(svg.removeprefix("<svg "))


def lines(
    rows: Iterable[dict[str, Any]],
    x: str,
    y: str,
    *,
    series: Sequence[str],
    y_axis: dict[str, Any] | None = None,
    marks: Sequence[dict[str, Any]] = (),
    log_y: bool = False,
    points: bool = False,
    doublings: bool = False,
    from_zero: bool = False,
) -> dict[str, Any]:
    """Return lines over a number. rows: {x, y, "series"}; marks: {x, "label"}, drawn as vertical rules.

    doublings: of x, at equal distances, each with its tick.
    """
    values = list(rows)
    heights = {row[y] for row in values}
    if len(heights) == 1:  # else the axis would round its one tick as it likes
        y_axis = {"values": list(heights), "format": ".4~r", **(y_axis or {})}
    span = max((row[x] for row in values), default=0) - min((row[x] for row in values), default=0)
    scale: dict[str, Any] = {"type": "log"} if log_y else {"zero": from_zero}
    x_scale: dict[str, Any] = {"type": "log", "base": 2} if doublings else {}
    ticks = {"values": sorted({row[x] for row in values})} if doublings else {"tickCount": max(1, min(10, int(span)))}
    encoding: dict[str, Any] = {
        "x": {
            "field": x,
            "type": "quantitative",
            "title": x,
            "scale": {"nice": False, **x_scale},
            "axis": ticks,
        },
        "y": {"field": y, "type": "quantitative", "title": None, "scale": scale, "axis": y_axis or {}},
        "color": series_colour(series),
    }
    layers: list[dict[str, Any]] = [
        {"data": {"values": values}, "mark": {"type": "line", "point": {"size": 22} if points else False}}
    ]
    layers[0]["encoding"] = encoding
    if marks:
        at = {"field": x, "type": "quantitative"}
        shared: dict[str, Any] = {"data": {"values": list(marks)}}
        layers.append({**shared, "mark": {"type": "rule", "stroke": BAD, "strokeDash": [4, 3]}, "encoding": {"x": at}})
        label = {"type": "text", "align": "left", "dx": 4, "dy": 6, "baseline": "top", "fill": BAD}
        layers.append({**shared, "mark": label, "encoding": {"x": at, "y": {"value": 0}, "text": {"field": "label"}}})
    return {"layer": layers}


def series_colour(series: Sequence[str]) -> dict[str, Any]:
    scale = {"domain": list(series), "range": [SERIES[index % len(SERIES)] for index in range(len(series))]}
    return {"field": "series", "type": "nominal", "scale": scale, "legend": {} if len(series) > 1 else None}


def bars(
    rows: Sequence[dict[str, Any]], label: str, value: str, title: str, axis_format: str = "", **scale: Any
) -> dict[str, Any]:
    """Return horizontal bars in the order of the rows, each with its `text`."""
    y = {"field": label, "type": "ordinal", "sort": None, "title": None}
    x = {"field": value, "type": "quantitative", "title": title, "scale": scale}
    if axis_format:
        x["axis"] = {"format": axis_format}
    return {
        "data": {"values": list(rows)},
        "height": {"step": 20},
        "encoding": {"y": y, "x": x},
        "layer": [
            {"mark": {"type": "bar", "height": 13, "cornerRadiusEnd": 2}},
            {"mark": {"type": "text", "align": "left", "dx": 4}, "encoding": {"text": {"field": "text"}}},
        ],
    }
