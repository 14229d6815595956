"""The profiler's rules, under the names, parameters and defaults of AWS's "List of Debugger built-in profiler rules".

https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-profiler-rules.html. Where the SageMaker SDK has other
defaults than that page, these are the SDK's (smdebug_rulesconfig: patience of BatchSize, gpu_threshold of IOBottleneck,
stddev), but for CPUBottleneck's patience. window, mode and scan_interval_us are left out: a rule judges all training
steps, once, when they are over. A patience counts samples, of which there are two a second: below it, a rule judges
nothing. AWS's rules know GPUs; without one, the CPU is judged in its place where that means something. Dataloader
counts no processes here, as images are decoded by threads: it judges the share of the time that steps wait for data, by
the threshold of CPUBottleneck.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from findings import Finding, make_finding

USED = {
    "cpu_percent": "processors",
    "memory_percent": "memory",
    "io_wait_percent": "waiting for the disk",
    "gpu_percent": "GPU",
    "gpu_memory_percent": "its memory",
}


@dataclass(frozen=True)
class Profile:
    """What a profiler saw: milliseconds of each step, seconds of each phase and of all, samples by name.

    step_milliseconds: of each part of the training, with its name, but for what the debugger took. samples: as many of
    each name, or none where the machine does not tell.
    """

    step_milliseconds: list[tuple[str, list[float]]]
    phase_seconds: dict[str, float]
    seconds: float
    samples: dict[str, list[float]]
    gpus: int = 0


def judge(profile: Profile) -> list[Finding]:
    """Return each rule's finding."""
    rules = (batch_size, cpu_bottleneck, dataloader, io_bottleneck, step_outlier, overall_system_usage)
    return [rule(profile) for rule in rules]


def batch_size(
    profile: Profile,
    cpu_threshold_p95: float = 70,
    gpu_threshold_p95: float = 70,
    gpu_memory_threshold_p95: float = 70,
    patience: int = 1000,
) -> Finding:
    """The processors, and the GPU's memory, are used little at the 95th percentile of the samples."""
    parameters = {
        "cpu_threshold_p95": cpu_threshold_p95,
        "gpu_threshold_p95": gpu_threshold_p95,
        "gpu_memory_threshold_p95": gpu_memory_threshold_p95,
        "patience": patience,
    }
    limits = {
        "cpu_percent": cpu_threshold_p95,
        "gpu_percent": gpu_threshold_p95,
        "gpu_memory_percent": gpu_memory_threshold_p95,
    }
    if untold := _untold("BatchSize", profile, patience, parameters):
        return untold
    highest = {name: float(np.percentile(profile.samples[name], 95)) for name in limits if profile.samples[name]}
    if all(value < limits[name] for name, value in highest.items()):
        said = ", ".join(f"{name} {value:.0f}" for name, value in highest.items())
        return _finding(
            "BatchSize", f"Little is used at the 95th percentile ({said}): raise batch_size.", highest, parameters
        )
    return _nothing("BatchSize", "The machine is used.", highest, parameters)


def cpu_bottleneck(
    profile: Profile, threshold: float = 50, gpu_threshold: float = 10, cpu_threshold: float = 90, patience: int = 100
) -> Finding:
    """The GPU idles while the CPU is busy, in more than threshold percent of the samples."""
    parameters = {
        "threshold": threshold,
        "gpu_threshold": gpu_threshold,
        "cpu_threshold": cpu_threshold,
        "patience": patience,
    }
    if not profile.gpus:
        return _nothing("CPUBottleneck", "There is no GPU that would wait for the CPU.", {}, parameters)
    if untold := _untold("CPUBottleneck", profile, patience, parameters):
        return untold
    pairs = list(zip(profile.samples["cpu_percent"], profile.samples["gpu_percent"], strict=True))
    share = 100 * sum(cpu > cpu_threshold and gpu < gpu_threshold for cpu, gpu in pairs) / len(pairs)
    if share > threshold:
        said = f"The GPU waited for the CPU in {share:.0f} % of the samples: choose an instance with more CPUs a GPU."
        return _finding("CPUBottleneck", said, {"share_percent": share}, parameters)
    return _nothing("CPUBottleneck", "The GPU does not wait for the CPU.", {"share_percent": share}, parameters)


def dataloader(profile: Profile, threshold: float = 50) -> Finding:
    """Steps wait for data for more than threshold percent of the time."""
    waited = profile.phase_seconds["data_wait"]
    spent = sum(sum(times) for _, times in profile.step_milliseconds) / 1000
    share = 100 * waited / spent if spent else 0.0
    values, parameters = {"share_percent": share}, {"threshold": threshold}
    if share > threshold:
        said = f"Steps waited for data for {share:.0f} % of their time: use smaller images, or more or faster CPUs."
        return _finding("Dataloader", said, values, parameters)
    return _nothing("Dataloader", f"Steps waited for data for {share:.0f} % of their time.", values, parameters)


def io_bottleneck(
    profile: Profile, threshold: float = 50, gpu_threshold: float = 10, io_threshold: float = 50, patience: int = 1000
) -> Finding:
    """The processors wait for the disk in more than threshold percent of the samples."""
    parameters = {
        "threshold": threshold,
        "gpu_threshold": gpu_threshold,
        "io_threshold": io_threshold,
        "patience": patience,
    }
    if untold := _untold("IOBottleneck", profile, patience, parameters):
        return untold
    waits = profile.samples["io_wait_percent"]
    gpus = profile.samples["gpu_percent"] or [0.0] * len(waits)
    share = (
        100 * sum(io > io_threshold and gpu < gpu_threshold for io, gpu in zip(waits, gpus, strict=True)) / len(waits)
    )
    if share > threshold:
        said = (
            f"The processors waited for the disk in {share:.0f} % of the samples: keep the images in memory, "
            "or use a faster disk."
        )
        return _finding("IOBottleneck", said, {"share_percent": share}, parameters)
    return _nothing("IOBottleneck", "Nobody waits for the disk.", {"share_percent": share}, parameters)


def step_outlier(profile: Profile, stddev: float = 3, n_outliers: int = 10) -> Finding:
    """More than n_outliers steps took longer than the mean by stddev standard deviations, and twice the median.

    The second is ours: steps that share the machine are a little longer than others. Steps are compared within a part
    of the training: those of a whole network are no outliers among those of its head.
    """
    parameters = {"stddev": stddev, "n_outliers": n_outliers}
    found: list[Finding] = []
    steps = outliers = 0
    for part, milliseconds in profile.step_milliseconds:
        times = np.array(milliseconds)
        median = float(np.median(times))
        limit = max(times.mean() + stddev * times.std(), 2 * median)
        long = np.flatnonzero(times > limit)
        if len(long) > n_outliers:
            said = (
                f"{len(long)} of {len(times)} steps of {part} took longer than {limit:.0f} ms, the median is "
                f"{median:.0f} ms: look at what happens at these steps, and at the disk and the memory."
            )
            values = {"outliers": len(long), "median_ms": median, "longest_ms": float(times.max())}
            found.append(_finding("StepOutlier", said, values, parameters, steps + int(long[0])))
        steps += len(times)
        outliers += len(long)
    told = f"{outliers} of {steps} steps took unusually long."
    return found[-1] if found else _nothing("StepOutlier", told, {"outliers": outliers}, parameters)


def overall_system_usage(profile: Profile) -> Finding:
    """Tells how much of the machine was used; as AWS's, it finds no fault."""
    values: dict[str, float] = {}
    said = []
    for name, what in USED.items():
        if profile.samples[name]:
            median, high = np.percentile(profile.samples[name], [50, 95])
            values |= {f"{name}_p50": float(median), f"{name}_p95": float(high)}
            said.append(f"{what} {median:.0f} % (95th percentile {high:.0f} %)")
    return _nothing("OverallSystemUsage", f"In use, median: {', '.join(said) or 'no sample was taken'}.", values, {})


def _untold(rule: str, profile: Profile, patience: int, parameters: dict[str, Any]) -> Finding | None:
    if profile.gpus and not profile.samples["gpu_percent"]:
        return _nothing(rule, "Nothing is known of the GPU's use: nvidia-ml-py tells it.", {}, parameters)
    samples = len(profile.samples["cpu_percent"])
    if samples >= patience:
        return None
    return _nothing(rule, f"Too few samples to judge: {samples} of {patience}.", {}, parameters)


def _finding(
    rule: str, message: str, values: dict[str, Any], parameters: dict[str, Any], step: int | None = None
) -> Finding:
    return make_finding(rule, "IssuesFound", message, step=step, values=values, parameters=parameters)


def _nothing(rule: str, message: str, values: dict[str, Any], parameters: dict[str, Any]) -> Finding:
    return make_finding(rule, "NoIssuesFound", message, values=values, parameters=parameters)
