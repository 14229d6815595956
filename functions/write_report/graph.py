"""The state machine's graph with the path that a run took: the way of a good run as a column, detours beside it.

States that a run neither passes on its way nor came to are not drawn: most of them are for what did not happen.
"""

from collections.abc import Sequence
from typing import Any

from charts import BAD, LINE, MUTED, SERIES, TEXT
from history import Course, State, main_line, ways_from
from wording import counted, duration

ROW_PX, BOX_WIDTH_PX, BOX_HEIGHT_PX, LANE_PX, MARGIN_PX = 32, 296, 22, 336, 14
NAME_PX = 168
AHEAD = 2
"""States of the main line that are drawn beyond the last that was entered."""


def spec(course: Course, definition: dict[str, Any]) -> dict[str, Any]:
    """Return the graph as a Vega-Lite specification."""
    places = _places(course, definition)
    seen = {state.name: state for state in course.states}
    boxes = [_box(name, lane, row, seen.get(name)) for name, (lane, row) in places.items()]
    detours = any(lane for lane, _ in places.values())
    width = MARGIN_PX + LANE_PX * (2 if detours else 1)
    height = ROW_PX * (1 + max(row for _, row in places.values()))
    across = {"type": "quantitative", "axis": None, "scale": {"domain": [0, width], "nice": False}}
    down = {"type": "quantitative", "axis": None, "scale": {"domain": [0, height], "nice": False, "reverse": True}}

    def at(**fields: str) -> dict[str, Any]:
        axes = {name: {"field": field, **(down if name.startswith("y") else across)} for name, field in fields.items()}
        return {**axes, **{name: {"field": axes[name]["field"]} for name in ("x2", "y2") if name in axes}}

    kinds = {"domain": ["taken", "failed", "open"], "range": [SERIES[0], BAD, LINE]}
    colour = {"field": "kind", "type": "nominal", "scale": kinds, "legend": None}
    return {
        "width": width,
        "height": height,
        "layer": [
            {
                "data": {"values": _edges(course, definition, places)},
                "mark": {"type": "line", "strokeWidth": 1.6, "strokeJoin": "round"},
                "encoding": {
                    **at(x="x", y="y"),
                    "detail": {"field": "edge"},
                    "order": {"field": "order"},
                    "stroke": colour,
                },
            },
            {
                "data": {"values": boxes},
                "mark": {"type": "rect", "cornerRadius": 5, "fill": "var(--card)", "strokeWidth": 1.5},
                "encoding": {**at(x="x", x2="x2", y="y", y2="y2"), "stroke": colour},
            },
            {
                "data": {"values": boxes},
                "mark": {"type": "text", "align": "left", "baseline": "middle", "dx": 8, "limit": NAME_PX},
                "encoding": {
                    **at(x="x", y="middle"),
                    "text": {"field": "name"},
                    "fill": {"condition": {"test": "datum.kind == 'open'", "value": MUTED}, "value": TEXT},
                },
            },
            {
                "data": {"values": boxes},
                "mark": {"type": "text", "align": "right", "baseline": "middle", "dx": -8, "fill": MUTED},
                "encoding": {**at(x="x2", y="middle"), "text": {"field": "note"}},
            },
        ],
    }


def undrawn(course: Course, definition: dict[str, Any]) -> list[str]:
    """Return the states that are not in the graph."""
    drawn = _places(course, definition)
    return [name for name in definition["States"] if name not in drawn]


def _places(course: Course, definition: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return (lane, row) by name: the main line in lane 0, what else was entered in lane 1, beside its origin."""
    line = main_line(definition)
    entered = {state.name for state in course.states}
    furthest = max((row for row, name in enumerate(line) if name in entered), default=0)
    places = {name: (0, row) for row, name in enumerate(line[: furthest + 1 + AHEAD])}
    row = -1
    for state in course.states:
        if state.name in places:
            row = max(row, places[state.name][1])
        else:
            row += 1
            places[state.name] = (1, row)
    return places


def _box(name: str, lane: int, row: int, state: State | None) -> dict[str, Any]:
    x, y = MARGIN_PX + lane * LANE_PX, row * ROW_PX + (ROW_PX - BOX_HEIGHT_PX) / 2
    box = {
        "name": name,
        "x": x,
        "x2": x + BOX_WIDTH_PX,
        "y": y,
        "y2": y + BOX_HEIGHT_PX,
        "middle": y + BOX_HEIGHT_PX / 2,
    }
    if state is None:
        return {**box, "kind": "open", "note": ""}
    return {**box, "kind": "failed" if state.error else "taken", "note": note(state)}


def note(state: State) -> str:
    """Return what there is to say of a state's visits, shortly."""
    said = [duration(state.seconds) if state.seconds is not None else "not left"]
    if state.visits > 1:
        said.append(f"{state.visits} ×")
    if state.retries:
        said.append(counted(state.retries, "retry", "retries"))
    return ", ".join(said)


def _edges(course: Course, definition: dict[str, Any], places: dict[str, tuple[int, int]]) -> list[dict[str, Any]]:
    """Return the points of every edge between drawn states: those that were taken, and those of the main line."""
    open_ways = [
        (start, end)
        for start, state in definition["States"].items()
        for end in ways_from(state)
        if start in places and end in places and places[start][0] == places[end][0] == 0
    ]
    edges = []
    for start, end in dict.fromkeys([*open_ways, *course.steps]):
        if start in places and end in places and start != end:
            kind = "taken" if (start, end) in course.steps else "open"
            points = _way(places[start], places[end])
            edges += [
                {"edge": f"{start} {end}", "order": order, "x": x, "y": y, "kind": kind}
                for order, (x, y) in enumerate(points)
            ]
    # The last drawn lie on top.
    return sorted(edges, key=lambda point: point["kind"] == "taken")


def _way(start: tuple[int, int], end: tuple[int, int]) -> Sequence[tuple[float, float]]:
    """Return the corners of an edge: straight down, around on the left within a lane, or across to the other."""
    (lane, row), (other_lane, other_row) = start, end
    left, y = MARGIN_PX + lane * LANE_PX, row * ROW_PX + ROW_PX / 2
    other_left, other_y = MARGIN_PX + other_lane * LANE_PX, other_row * ROW_PX + ROW_PX / 2
    centre = left + 24
    if lane == other_lane and other_row == row + 1:
        return (centre, y), (centre, other_y)
    if lane == other_lane:
        beside = left - (5 if other_row > row else 10)
        return (left, y), (beside, y), (beside, other_y), (left, other_y)
    beside = MARGIN_PX + LANE_PX - 12
    if other_lane > lane:
        return (left + BOX_WIDTH_PX, y), (beside, y), (beside, other_y), (other_left, other_y)
    return (left, y), (beside, y), (beside, other_y), (other_left + BOX_WIDTH_PX, other_y)
