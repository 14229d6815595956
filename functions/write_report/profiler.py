"""The profiler's page: where a training's time went, what the machine did meanwhile, and what the rules say of both."""

from collections.abc import Iterator
from statistics import mean, median
from typing import Any

from charts import Figure, Table, bars, draw, lines
from run import Run
from training import curves, gradient_norms, rules
from wording import counted, duration, figures, percent

BYTES_PER_MB = 1e6


def summary(run: Run) -> dict[str, Any]:
    """Return what the page opens with."""
    profile = run.document("profile")
    machine = profile["machine"]
    on = ", ".join(machine["gpus"]) or "no GPU"
    said = f"{counted(profile['steps'], 'step')} of {counted(profile['batch_size'], 'image')} in "
    said += f"{duration(profile['seconds'])} on {counted(machine['cpus'], 'core')} and {on}."
    found = [one["rule"] for one in _findings(run) if one["status"] == "IssuesFound"]
    verdict = f"{', '.join(found)} found an issue." if found else "No rule found an issue."
    steps = [one for one in profile["step_times"]["milliseconds"] if one is not None]
    cores = [one for one in profile["utilisation"]["cpu_percent"] if one is not None]
    tiles = [("Speed", figures(profile["images_per_second"]), "images a second")]
    tiles += [("A step", f"{figures(median(steps))}\u00a0ms", "median")] if steps else []
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
        "figures": [breakdown, *_step_times(profile["step_times"])],
        "phases": Table(("phase", "time", "share", "ms a step, median", "95 % within ms"), cells),
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


def _step_times(times: dict[str, Any]) -> Iterator[Figure]:
    rows = [
        {"step": step, "ms": value, "series": "step"}
        for step, value in zip(times["steps"], times["milliseconds"], strict=False)
        if value is not None
    ]
    if rows:
        slowest = max(rows, key=lambda row: row["ms"])
        description = f"Time of each step: {figures(median(row['ms'] for row in rows))} ms in the median, "
        description += f"{figures(slowest['ms'])} ms at the most, at step {slowest['step']}."
        table = Table(("step", "ms"), [(figures(row["step"]), figures(row["ms"])) for row in rows])
        spec = lines(rows, "step", "ms", series=["step"], y_axis={"title": "ms"})
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
