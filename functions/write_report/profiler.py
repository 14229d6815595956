"""The profiler's page: where a training's time went, what the machine did meanwhile, and what the rules say of both."""

from collections.abc import Iterator
from statistics import mean, median
from typing import Any

from charts import Figure, Table, bars, draw, lines
from run import Run
from training import curves, gradient_norms, parts, rules
from wording import counted, duration, figures, percent

BYTES_PER_MB = 1e6


def summary(run: Run) -> dict[str, Any]:
    """Return what the page opens with."""
    profile = run.document("profile")
    machine = profile["machine"]
    on = ", ".join(machine["gpus"]) or "no GPU"
    trained = parts(profile)
    done = [f"{counted(one['steps'], 'step')} of {counted(one['batch_size'], 'image')}" for one in trained]
    said = f"{' and '.join(done)} in {duration(profile['seconds'])} on {counted(machine['cpus'], 'core')} and {on}."
    found = [one["rule"] for one in _findings(run) if one["status"] == "IssuesFound"]
    verdict = f"{', '.join(found)} found an issue." if found else "No rule found an issue."
    steps = [row["ms"] for row in _step_rows(profile) if row["series"] == _name(trained[-1])]
    cores = [one for one in profile["utilisation"]["cpu_percent"] if one is not None]
    tiles = [("Speed", figures(trained[-1]["images_per_second"]), f"images a second{_of_the_last(trained)}")]
    tiles += [("A step", f"{figures(median(steps))}\u00a0ms", f"median{_of_the_last(trained)}")] if steps else []
    tiles += [("Processors", percent(mean(cores) / 100, 0), "busy on average")] if cores else []
    tiles.append(("Memory", f"{figures(machine['memory_bytes'] / 1e9)}\u00a0GB", "of the machine"))
    return {
        "kind": "found" if found else "deployed",
        "title": "Profile of the training",
        "sentence": f"{said} {verdict}",
        "tiles": tiles,
    }


def rule_table(run: Run) -> dict[str, Any] | None:
    table = rules(_findings(run))
    return {"rules": table} if table else None


def steps(run: Run) -> dict[str, Any]:
    """Return what a step is made of."""
    profile = run.document("profile")
    phases = [{**phase, "name": phase["name"].replace("_", " ")} for phase in profile["phases"]]
    rows = [{"phase": one["name"], "share": one["share"], "text": percent(one["share"])} for one in phases]
    longest = max(phases, key=lambda one: one["share"])
    description = (
        f"Share of the training's time by phase: {longest['name']} has the largest, {percent(longest['share'])}."
    )
    spec = bars(rows, "phase", "share", "share of the time", ".0%", domain=[0, 1.2 * longest["share"] or 1])
    cells = [
        (one["name"], duration(one["seconds"]), percent(one["share"]), figures(one["p50_ms"]), figures(one["p95_ms"]))
        for one in phases
    ]
    breakdown = Figure("Where the time went", description, draw(spec, description))
    return {
        "figures": [breakdown, *_step_times(profile)],
        "phases": Table(
            ("phase", "time", "share", f"ms a step{_of_the_last(parts(profile))}", "95 % within ms"), cells
        ),
    }


def utilisation(run: Run) -> dict[str, Any] | None:
    """Return what the machine did."""
    samples = run.document("profile")["utilisation"]
    shown = [figure for figure in _utilisations(samples) if figure]
    return {"figures": shown} if shown else None


def operators(run: Run) -> dict[str, Any] | None:
    window = run.document("profile")["window"]
    if not window:
        return None
    rows = [
        (one["name"], percent(one["share"]), figures(one["calls"]), figures(one["cpu_ms"]), figures(one["gpu_ms"]))
        for one in window["operators"]
    ]
    last = window["first_step"] + window["steps"] - 1
    return {
        "sentence": f"What PyTorch's profiler saw of the steps {window['first_step']} to {last}.",
        "trace": window["trace"],
        "operators": Table(("operator", "share", "calls", "ms on the CPU", "ms on the GPU"), rows),
    }


def curves_of(run: Run) -> dict[str, Any] | None:
    findings = run.document("findings")
    shown = [*curves(findings), *([norms] if (norms := gradient_norms(findings)) else [])]
    return {"figures": shown} if shown else None


def _findings(run: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run.document("profile")["findings"]
    return [*found, *run.document("findings").get("findings", [])]


def _name(part: dict[str, Any]) -> str:
    return str(part["name"]).replace("_", " ")


def _of_the_last(trained: list[dict[str, Any]]) -> str:
    """Return which part of several the figures are of: steps of a head are not to be compared with a network's."""
    return f", {_name(trained[-1])}" if len(trained) > 1 else ""


def _step_rows(profile: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the time of each step, with the part of the training that it belongs to as its series."""
    times = profile["step_times"]
    return [
        {"step": step, "ms": value, "series": _name([one for one in parts(profile) if one["first_step"] <= step][-1])}
        for step, value in zip(times["steps"], times["milliseconds"], strict=False)
        if value is not None
    ]


def _step_times(profile: dict[str, Any]) -> Iterator[Figure]:
    rows = _step_rows(profile)
    if rows:
        slowest = max(rows, key=lambda row: row["ms"])
        series = list(dict.fromkeys(row["series"] for row in rows))
        medians = {one: median(row["ms"] for row in rows if row["series"] == one) for one in series}
        said = " and ".join(f"{figures(value)} ms in the median of {name}" for name, value in medians.items())
        description = f"Time of each step: {said}, {figures(slowest['ms'])} ms at the most, at step {slowest['step']}."
        table = Table(("step", "of", "ms"), [(figures(row["step"]), row["series"], figures(row["ms"])) for row in rows])
        spec = lines(rows, "step", "ms", series=series, y_axis={"title": "ms"})
        yield Figure("Time of each step", description, draw(spec, description), table)


def _utilisations(samples: dict[str, Any]) -> Iterator[Figure | None]:
    yield _over_time(
        "Busy", samples, {"processors": "cpu_percent", "GPU": "gpu_percent", "waiting for I/O": "io_wait_percent"}, "%"
    )
    yield _over_time("Memory in use", samples, {"memory": "memory_percent", "GPU memory": "gpu_memory_percent"}, "%")
    reads = {"read": "disk_read_bytes_per_second", "written": "disk_write_bytes_per_second"}
    yield _over_time("Disk", samples, reads, "MB a second", BYTES_PER_MB)


def _over_time(
    title: str, samples: dict[str, Any], fields: dict[str, str], unit: str, divisor: float = 1
) -> Figure | None:
    rows = [
        {"seconds": second, "value": value / divisor, "series": series}
        for series, field in fields.items()
        for second, value in zip(samples["seconds"], samples[field], strict=False)
        if value is not None
    ]
    series = list(dict.fromkeys(row["series"] for row in rows))
    if not rows:
        return None
    means = [f"{one} {figures(mean(row['value'] for row in rows if row['series'] == one))} {unit}" for one in series]
    description = f"{title} over time, on average: {', '.join(means)}."
    spec = lines(rows, "seconds", "value", series=series, y_axis={"title": unit})
    table = Table(
        ("second", "what", unit), [(figures(row["seconds"]), row["series"], figures(row["value"])) for row in rows]
    )
    return Figure(title, description, draw(spec, description), table)
