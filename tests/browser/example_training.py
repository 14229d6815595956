"""What the training of a run that never was left: its history, its profile, and what the debugger found."""

import math
from typing import Any

from tests.browser.example_run import ExampleRun, example

RULES = ("Hooks", "LossNotDecreasing", "ExplodingTensor", "VanishingGradient", "Overfit", "DeadRelu", "ClassImbalance")


def add_history(run: ExampleRun, epochs: int) -> None:
    given = example("training_history")
    rows = [
        {
            **given["epochs"][1],
            "epoch": epoch,
            "phase": "head" if epoch <= 2 else "fine_tune",
            "train_loss": 2.2 * math.exp(-epoch / 5) + run.random.uniform(0.05, 0.12),
            "train_accuracy": 1 - 0.85 * math.exp(-epoch / 4),
            "valid_loss": 2.0 * math.exp(-epoch / 4) + 0.2 + 0.006 * epoch + run.random.uniform(0, 0.06),
            "valid_accuracy": run.accuracy - 0.75 * math.exp(-epoch / 3.5) + run.random.gauss(0, 0.008),
            "learning_rate": 0.002 * min(1, epoch / 4) * 0.5 * (1 + math.cos(math.pi * max(0, epoch - 4) / epochs)),
            "images_per_second": run.random.gauss(310, 12),
        }
        for epoch in range(1, epochs + 1)
    ]
    best = max(rows, key=lambda row: row["valid_accuracy"])["epoch"]
    folder = run.plan["locations"]["train_checkpoints"]
    run.add("training_history", given | {"best_epoch": best, "epochs": rows}, f"{folder}training_history.json")


def add_profile(run: ExampleRun, steps: int) -> None:
    given = example("profile")
    seconds = [half / 2 for half in range(180)]
    utilisation = {name: [] for name in given["utilisation"]} | {
        "seconds": seconds,
        "cpu_percent": [max(0, min(100, run.random.gauss(88, 7))) for _ in seconds],
        "memory_percent": [21 + 4 * (1 - math.exp(-second / 20)) for second in seconds],
        "process_memory_bytes": [9e8 + 2e6 * second for second in seconds],
        "disk_read_bytes_per_second": [run.random.expovariate(1 / 3e6) for _ in seconds],
        "disk_write_bytes_per_second": [run.random.expovariate(1 / 4e5) for _ in seconds],
        "io_wait_percent": [run.random.expovariate(1.5) for _ in seconds],
    }
    head = steps // 2
    times = [run.random.gauss(31, 2) for _ in range(head)]
    times += [412.0, *(run.random.gauss(212, 9) + 160 * (run.random.random() < 0.02) for _ in times[1:])]
    shown = list(range(0, len(times), max(1, steps // 400)))
    document = given | {
        "job": run.plan["names"]["train"],
        "steps": len(times),
        "parts": [
            {"name": "head", "first_step": 0, "steps": head, "batch_size": 64, "images_per_second": 2064.5},
            {"name": "fine_tune", "first_step": head, "steps": head, "batch_size": 32, "images_per_second": 150.6},
        ],
        "step_times": {"steps": shown, "milliseconds": [times[step] for step in shown]},
        "utilisation": utilisation,
    }
    run.add("profile", document, f"{run.plan['locations']['train_checkpoints']}profile.json")


def add_findings(run: ExampleRun, steps: int, found: dict[str, tuple[int, str]]) -> None:
    """found: step and sentence by rule."""
    at = list(range(0, steps, max(1, steps // 120)))
    explodes = found.get("ExplodingTensor", (steps + 1, ""))[0]

    def loss(step: int, slow: float) -> float | None:
        if step >= explodes:
            return None
        return 2.3 * math.exp(-slow * step / steps) * run.random.uniform(0.9, 1.1) + 0.08

    evaluations = [step for step in range(steps // 20, steps, max(1, steps // 20)) if step < explodes]
    curves = [
        {"name": "loss", "mode": "train", "steps": at, "values": [loss(step, 4) for step in at]},
        {"name": "loss", "mode": "eval", "steps": evaluations, "values": [loss(step, 2.5) for step in evaluations]},
        {
            "name": "learning_rate",
            "mode": "train",
            "steps": at,
            "values": [0.002 * min(1, step / steps / 0.2) * (1 - step / steps) for step in at],
        },
    ]
    layers = [
        "conv1.weight",
        *(f"layer{a}.{b}.conv{c}.weight" for a in range(1, 5) for b in (0, 1) for c in (1, 2)),
        "fc.weight",
    ]
    norms = {
        "steps": at[::3],
        "layers": [
            {
                "name": name,
                "norms": [
                    (0.4 + 0.3 * depth) * math.exp(-step / steps) * run.random.uniform(0.7, 1.3) for step in at[::3]
                ],
            }
            for depth, name in enumerate(layers)
        ],
    }
    document = example("findings") | {
        "job": run.plan["names"]["train"],
        "steps": steps,
        "stopped": None,
        "findings": _findings(found),
        "curves": curves,
        "gradient_norms": norms,
    }
    run.add("findings", document, f"{run.plan['locations']['train_checkpoints']}findings.json")


def add_review(run: ExampleRun, verdict: str, found: dict[str, tuple[int, str]]) -> None:
    """found: step and sentence by rule."""
    reason = "; ".join(sentence for _, sentence in found.values()) or f"{len(RULES)} rules ran and found no issue."
    given = example("debugger_review")
    last = given["attempts"][-1] | {
        "job": run.plan["names"]["train"],
        "checkpoints": run.plan["locations"]["train_checkpoints"],
        "verdict": verdict,
        "reason": reason,
    }
    attempts = [*given["attempts"][:-1], last] if verdict == "accept" else [last | {"attempt": 1}]
    document = given | {
        "job": last["job"],
        "verdict": verdict,
        "reason": reason,
        "attempts": attempts,
        "findings": _findings(found),
    }
    run.add("debugger_review", document)


def _findings(found: dict[str, tuple[int, str]]) -> list[dict[str, Any]]:
    return [
        {
            "rule": rule,
            "source": "rules",
            "status": "IssuesFound" if rule in found else "NoIssuesFound",
            "step": found[rule][0] if rule in found else None,
            "tensor": "CrossEntropyLoss_output_0" if rule in found else None,
            "values": {"value": 812.4} if rule in found else {},
            "parameters": {},
            "message": found[rule][1] if rule in found else "Nothing of the kind.",
        }
        for rule in RULES
    ]
