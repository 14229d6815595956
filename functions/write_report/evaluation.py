"""The evaluation: right and wrong by class, how far a probability can be trusted, and the worst mistakes."""

import math
from collections.abc import Sequence
from typing import Any

from charts import MUTED, SERIES, Figure, Table, draw, series_colour
from run import Run
from wording import counted, figures, percent

Z_95_PERCENT = 1.959964
"""Quantile of the normal distribution for a two-sided interval at 95 %."""
MOST_NAMED_CLASSES = 30
"""In a matrix whose cells hold their number, and in a chart of bars; of more classes, those that are worst."""
CONFUSIONS = 15


def section(run: Run) -> dict[str, Any] | None:
    evaluation = run.document("evaluation")
    if not evaluation:
        return None
    return {
        "sentence": _sentence(evaluation),
        "figures": [*matrices(evaluation), _recalls(evaluation), *_reliability(evaluation)],
        "scores": _scores(evaluation),
        "confusions": _confusions(evaluation),
        "classes": _classes(evaluation),
        "mistakes": _mistakes(run, evaluation),
    }


def accuracy_interval(evaluation: dict[str, Any]) -> tuple[float, float]:
    """Return the 95 % interval of the accuracy, computed here where an older evaluation has none."""
    low, high = evaluation.get("accuracy_interval") or wilson_interval(evaluation["accuracy"], evaluation["images"])
    return low, high


def recall_interval(one: dict[str, Any]) -> tuple[float, float]:
    low, high = one.get("recall_interval") or wilson_interval(one["recall"], one["images"])
    return low, high


def wilson_interval(share: float, images: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share (Wilson 1927, JASA 22, 209-212)."""
    if images == 0:
        return 0.0, 1.0
    z2 = Z_95_PERCENT**2
    centre = share + z2 / (2 * images)
    margin = Z_95_PERCENT * math.sqrt(share * (1 - share) / images + z2 / (4 * images**2))
    return max(0.0, (centre - margin) / (1 + z2 / images)), min(1.0, (centre + margin) / (1 + z2 / images))


def _sentence(evaluation: dict[str, Any]) -> str:
    wrong = evaluation["images"] - sum(row[index] for index, row in enumerate(evaluation["confusion_matrix"]))
    worst = min((one for one in evaluation["per_class"] if one["images"]), key=lambda one: one["recall"])
    found = f"{percent(worst['recall'])} of its {counted(worst['images'], 'image')} are found"
    return (
        f"{percent(evaluation['accuracy'])} of {counted(evaluation['images'], 'image')} are right, {figures(wrong)} "
        f"wrong; always answering the most common class would give {percent(evaluation['majority_share'])}. "
        f"The worst class is {worst['label']}: {found}."
    )


def _scores(evaluation: dict[str, Any]) -> Table:
    rows = [
        ("accuracy", percent(evaluation["accuracy"], 2), _between(accuracy_interval(evaluation))),
        ("top-5 accuracy", percent(evaluation["top5_accuracy"], 2), ""),
        ("macro F1", figures(evaluation["macro_f1"]), _between(evaluation.get("macro_f1_interval"))),
        ("calibration error", figures(evaluation["calibration_error"]), ""),
    ]
    if answered := evaluation.get("answered"):
        share = answered["images"] / evaluation["images"]
        remark = f"on the {percent(share)} that it answers with at least {percent(answered['confidence_threshold'])}"
        rows.append(("accuracy where it is sure", percent(answered["accuracy"], 2), remark))
    return Table(("score", "value", "at 95 %, or where"), rows)


def _between(interval: Sequence[float] | None) -> str:
    return f"{percent(interval[0])} to {percent(interval[1])}" if interval else ""


def matrices(evaluation: dict[str, Any]) -> list[Figure]:
    """Return the confusion matrix; of very many classes without names, and beside it that of the most confused."""
    labels, matrix = evaluation["classes"], evaluation["confusion_matrix"]
    everything = list(range(len(labels)))
    if len(labels) <= MOST_NAMED_CLASSES:
        return [_matrix("Confusion matrix", labels, matrix, everything)]
    wrong = [sum(matrix[i]) + sum(row[i] for row in matrix) - 2 * matrix[i][i] for i in everything]
    worst = sorted(sorted(everything, key=lambda index: -wrong[index])[:20])
    return [
        _matrix(f"Confusion matrix of all {len(labels)} classes", labels, matrix, everything),
        _matrix("Confusion matrix of the 20 classes that are confused most", labels, matrix, worst),
    ]


def _matrix(title: str, labels: list[str], matrix: list[list[int]], shown: list[int]) -> Figure:
    named = len(shown) <= MOST_NAMED_CLASSES
    cells = [(i, j) for i in shown for j in shown if matrix[i][j]]
    rows = [
        {
            "true": labels[i],
            "predicted": labels[j],
            "share": matrix[i][j] / sum(matrix[i]),
            "count": matrix[i][j],
            "right": i == j,
        }
        for i, j in cells
    ]
    scale = {"domain": [labels[index] for index in shown], "paddingInner": 0}
    axis = {"ticks": False, "labels": named, "domain": True}
    opacity = {"domain": [0, 1], "range": [0.12, 0.8] if named else [0.35, 1]}
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "rect"},
            "encoding": {
                "fill": {"condition": {"test": "datum.right", "value": SERIES[0]}, "value": SERIES[1]},
                "fillOpacity": {"field": "share", "type": "quantitative", "scale": opacity, "legend": None},
            },
        }
    ]
    if named:
        layers.append({"mark": {"type": "text", "fontSize": 10}, "encoding": {"text": {"field": "count"}}})
    step = 24 if named else 5
    spec = {
        "data": {"values": rows},
        "width": {"step": step},
        "height": {"step": step},
        "encoding": {
            "x": {"field": "predicted", "type": "ordinal", "scale": scale, "axis": {**axis, "labelAngle": -60}},
            "y": {"field": "true", "type": "ordinal", "scale": scale, "axis": axis},
        },
        "layer": layers,
    }
    right = sum(matrix[index][index] for index in shown)
    images = sum(sum(matrix[index]) for index in shown)
    description = f"{title}: of {counted(images, 'image')}, {figures(right)} are on the diagonal, which is right."
    note = "Blue is right, orange is wrong; the fuller the colour, the larger the share of its row."
    return Figure(title, description, draw(spec, description), wide=True, note=note)


def _recalls(evaluation: dict[str, Any]) -> Figure:
    per_class = sorted((one for one in evaluation["per_class"] if one["images"]), key=lambda one: one["recall"])
    shown = per_class[:MOST_NAMED_CLASSES]
    rows = []
    for one in shown:
        low, high = recall_interval(one)
        rows.append({"label": one["label"], "recall": one["recall"], "low": low, "high": high})
    y = {"field": "label", "type": "ordinal", "sort": None, "title": None}
    scale = {"domain": [0, 1]}
    x = {
        "field": "recall",
        "type": "quantitative",
        "title": "recall, with its 95 % interval",
        "scale": scale,
        "axis": {"format": ".0%", "grid": True},
    }
    spec = {
        "data": {"values": rows},
        "height": {"step": 18},
        "encoding": {"y": y},
        "layer": [
            {
                "mark": {"type": "bar", "height": 12, "fill": SERIES[0], "fillOpacity": 0.6, "cornerRadiusEnd": 2},
                "encoding": {"x": x},
            },
            {
                "mark": {"type": "rule", "stroke": "var(--text)", "strokeWidth": 1.6},
                "encoding": {"x": {"field": "low", "type": "quantitative"}, "x2": {"field": "high"}},
            },
        ],
    }
    few = len(shown) == len(per_class)
    title = "Recall by class" if few else f"Recall of the {len(shown)} classes found worst"
    first = rows[0]
    between = f"between {percent(first['low'])} and {percent(first['high'])} at 95 %"
    description = f"{title}: {first['label']} has the lowest, {percent(first['recall'])}, {between}."
    return Figure(title, description, draw(spec, description))


def _reliability(evaluation: dict[str, Any]) -> list[Figure]:
    """Return accuracy by confidence, without and with the model's temperature."""
    calibration = evaluation.get("calibration")
    if not calibration:
        return []
    series = {"before": "temperature 1", "after": f"temperature {figures(calibration['temperature'])}"}
    rows = [
        {"confidence": one["confidence"], "accuracy": one["accuracy"], "images": one["images"], "series": said}
        for when, said in series.items()
        for one in calibration[when]["bins"]
        if one["images"]
    ]
    scale = {"domain": [0, 1], "nice": False}
    axis = {"format": ".0%", "grid": True}
    encoding = {
        "x": {"field": "confidence", "type": "quantitative", "scale": scale, "axis": axis},
        "y": {"field": "accuracy", "type": "quantitative", "scale": scale, "axis": axis},
        "color": series_colour(list(series.values())),
    }
    size = {"field": "images", "type": "quantitative", "scale": {"range": [25, 260]}, "legend": None}
    spec = {
        "width": 300,
        "height": 260,
        "layer": [
            {
                "data": {"values": [{"confidence": 0, "accuracy": 0}, {"confidence": 1, "accuracy": 1}]},
                "mark": {"type": "line", "stroke": MUTED, "strokeDash": [4, 3], "strokeWidth": 1},
                "encoding": {name: encoding[name] for name in ("x", "y")},
            },
            {"data": {"values": rows}, "mark": {"type": "line", "strokeWidth": 1.2}, "encoding": encoding},
            {"data": {"values": rows}, "mark": {"type": "point"}, "encoding": {**encoding, "size": size}},
        ],
    }
    errors = [calibration[when]["error"] for when in series]
    description = (
        f"Accuracy by confidence: the calibration error is {figures(errors[0])} without and {figures(errors[1])} "
    )
    description += "with the temperature that was fitted on other images."
    table = Table(
        ("temperature", "confidence", "accuracy", "images"),
        [(row["series"], percent(row["confidence"]), percent(row["accuracy"]), row["images"]) for row in rows],
    )
    note = "On the dashed line a probability means what it says; larger points stand for more images."
    return [Figure("Reliability", description, draw(spec, description), table, note=note)]


def _confusions(evaluation: dict[str, Any]) -> Table | None:
    labels, matrix = evaluation["classes"], evaluation["confusion_matrix"]
    found = [
        (matrix[i][j], labels[i], labels[j], sum(matrix[i]))
        for i in range(len(labels))
        for j in range(len(labels))
        if i != j and matrix[i][j]
    ]
    found.sort(key=lambda one: -one[0])
    rows = [
        (true, predicted, count, percent(count / images, 0)) for count, true, predicted, images in found[:CONFUSIONS]
    ]
    return (
        Table(("true class", "taken for", "images", "of its images"), rows, len(found) - CONFUSIONS) if rows else None
    )


def _classes(evaluation: dict[str, Any]) -> Table:
    rows = []
    for one in evaluation["per_class"]:
        low, high = recall_interval(one)
        between = f"{percent(low)} to {percent(high)}" if one["images"] else "–"
        rows.append(
            (
                one["label"],
                one["images"],
                percent(one["precision"]),
                percent(one["recall"]),
                between,
                figures(one["f1"]),
            )
        )
    return Table(("class", "images", "precision", "recall", "recall at 95 %", "F1"), rows)


def _mistakes(run: Run, evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the mistakes that were made with most confidence; each with its picture, if it has one."""
    mistakes = evaluation.get("mistakes") or evaluation.get("worst_mistakes", [])  # its name before it had pictures
    return [
        {
            "path": one["path"],
            "label": one["label"],
            "predicted": one["predicted"],
            "probability": percent(one["probability"]),
            "picture": run.left.picture("evaluation", one.get("thumbnail") or ""),
        }
        for one in mistakes
    ]
