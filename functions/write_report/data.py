"""The data: how many images of which class, what some of them look like, what was wrong with others."""

from typing import Any

from charts import SERIES, Figure, Table, draw, series_colour
from run import Run
from wording import counted, figures, percent

SPLITS = ("train", "valid", "test")
MOST_NAMED_CLASSES = 40
MOST_PROBLEMS = 50
UNEVEN = 1.5
"""How many times as many images the largest class has, from which on it is worth a sentence."""


def section(run: Run) -> dict[str, Any] | None:
    counts = _counts(run)
    if not counts:
        return None
    manifest = run.document("manifest")
    classes = list(dict.fromkeys(label for split in counts.values() for label in split))
    totals = {split: sum(counts.get(split, {}).values()) for split in SPLITS}
    said = ", ".join(f"{figures(total)} {split}" for split, total in totals.items())
    return {
        "sentence": f"{counted(sum(totals.values()), 'image')} of {counted(len(classes), 'class', 'classes')}: {said}.",
        "where": manifest.get("dataset_uri") or run.plan.get("dataset", {}).get("uri"),
        "figures": [_counts_figure(counts, classes)],
        "samples": _samples(run, classes),
        "problems": _problems(manifest),
        "remarks": _remarks(manifest),
    }


def _counts(run: Run) -> dict[str, dict[str, int]]:
    """Return images by split and class: those that could be read, or as many as the listing promised."""
    if found := run.document("manifest").get("counts"):
        return found
    splits = run.plan.get("dataset", {}).get("splits", {})
    return {name: split["images_by_class"] for name, split in splits.items()}


def _counts_figure(counts: dict[str, dict[str, int]], classes: list[str]) -> Figure:
    by_class = {label: [counts.get(split, {}).get(label, 0) for split in SPLITS] for label in classes}
    largest = sorted(classes, key=lambda label: -sum(by_class[label]))
    rows = [
        {"label": label, "place": place, "images": by_class[label][index], "series": split, "order": index}
        for place, label in enumerate(largest, start=1)
        for index, split in enumerate(SPLITS)
    ]
    few = len(classes) <= MOST_NAMED_CLASSES
    names = {"field": "label", "type": "ordinal", "sort": None, "title": None}
    places = {
        "field": "place",
        "type": "ordinal",
        "title": "classes, largest first",
        "axis": {"labels": False, "ticks": False},
    }
    images = {"field": "images", "type": "quantitative", "title": "images"}
    spec = {
        "data": {"values": rows},
        "width": 380 if few else 860,
        "height": {"step": 18} if few else 200,
        "mark": {"type": "bar", "fill": SERIES[0]},
        "encoding": {
            "y": names if few else images,
            "x": images if few else {**places, "scale": {"paddingInner": 0.15}},
            "fill": series_colour(SPLITS),
            "order": {"field": "order"},
        },
    }
    most, least = (f"{figures(sum(by_class[label]))} ({label})" for label in (largest[0], largest[-1]))
    description = f"Images by class and split: from {least} to {most} a class."
    table = Table(("class", *SPLITS, "all"), [(label, *by_class[label], sum(by_class[label])) for label in largest])
    return Figure("Images by class", description, draw(spec, description), table, wide=not few)


def _samples(run: Run, classes: list[str]) -> list[dict[str, Any]]:
    """Return pictures by class."""
    by_class: dict[str, list[str]] = {label: [] for label in classes}
    for sample in run.document("manifest").get("samples", []):
        picture = run.left.picture("manifest", sample["thumbnail"])
        if picture and sample["label"] in by_class:
            by_class[sample["label"]].append(picture)
    return [{"label": label, "pictures": pictures} for label, pictures in by_class.items() if pictures]


def _problems(manifest: dict[str, Any]) -> Table | None:
    """Return what is wrong with images: labels that contradict each other first."""
    rows = [
        (
            "contradicting labels"
            if not pair["same_class"]
            else "identical"
            if pair["identical"]
            else "near duplicate",
            pair["path"],
            f"of {pair['of']}{', left out' if pair['dropped'] else ''}",
        )
        for pair in sorted(manifest.get("near_duplicates", []), key=lambda pair: pair["same_class"])
    ]
    rows += [("unreadable", one["path"], one["reason"]) for one in manifest.get("unreadable", [])]
    rows += [("breaks off", one["path"], "filled in") for one in manifest.get("images", []) if one.get("truncated")]
    return Table(("problem", "image", "what"), rows[:MOST_PROBLEMS], len(rows) - MOST_PROBLEMS) if rows else None


def _remarks(manifest: dict[str, Any]) -> list[str]:
    remarks = []
    imbalance = manifest.get("imbalance")
    if imbalance and imbalance["ratio"] >= UNEVEN:
        remarks.append(
            f"The largest class, {imbalance['largest']}, has {figures(round(imbalance['ratio'], 1))} times as many "
            f"training images as the smallest, {imbalance['smallest']}."
        )
    for split, share in manifest.get("splits_taken", {}).items():
        remarks.append(
            f"No {split} split was given: {percent(share, 0)} of each class's training images were taken for it."
        )
    if ignored := manifest.get("ignored"):
        remarks.append(f"Left aside: {counted(len(ignored), 'file that is no image', 'files that are no images')}.")
    return remarks
