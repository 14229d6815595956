"""How the run ended, in a sentence, and the figures that sum it up."""

from typing import Any

from cost import costs
from evaluation import accuracy_interval
from run import Run
from wording import counted, dollars, duration, percent

SAID_OF = {"ModelRejected": "rejected", "TrainingStopped": "stopped"}


def heading(run: Run) -> dict[str, Any]:
    """Return how the run ended, which no document is needed for."""
    kind = SAID_OF.get(run.failure.error, "failed") if run.failure else "deployed"
    titles = {
        "deployed": "Deployed",
        "rejected": "Rejected by the gate",
        "stopped": "Stopped by the debugger",
        "failed": "Failed",
    }
    return {"kind": kind, "title": titles[kind], "sentence": "", "tiles": []}


def outcome(run: Run) -> dict[str, Any]:
    opening = heading(run)
    return {**opening, "sentence": _sentence(run, opening["kind"]), "tiles": _tiles(run)}


def _sentence(run: Run, kind: str) -> str:
    endpoint = run.plan.get("names", {}).get("endpoint")
    if run.failure:
        untouched = f" The endpoint {endpoint} was not touched." if endpoint and kind != "failed" else ""
        beginnings = {
            "rejected": "The model was not deployed.",
            "stopped": "The training was not good enough to go on.",
            "failed": f"{run.failure.error} in {run.failure.state}.",
        }
        return beginnings[kind] + untouched
    evaluation, verification = run.document("evaluation"), run.document("verification")
    said = f"The endpoint {endpoint} serves this model"
    if evaluation:
        said += f", which is right on {percent(evaluation['accuracy'])} of {counted(evaluation['images'], 'image')}"
        said += f" of the {evaluation['split']} split"
    if verification.get("verified"):
        said += f"; it gave the evaluation's answers on {counted(len(verification['answers']), 'known image')}"
    return said + "."


def _tiles(run: Run) -> list[tuple[str, str, str]]:
    """Return (what, figure, remark)."""
    tiles = []
    evaluation, leaderboard = run.document("evaluation"), run.document("leaderboard")
    if evaluation:
        low, high = accuracy_interval(evaluation)
        tiles.append(("Accuracy", percent(evaluation["accuracy"]), f"{percent(low)} to {percent(high)} at 95 %"))
        tiles.append(("Macro F1", f"{evaluation['macro_f1']:.3f}", "mean over classes"))
    if dataset := run.plan.get("dataset"):
        images = sum(split["images"] for split in dataset["splits"].values())
        tiles.append(
            (
                "Images",
                counted(images, "image").split(" image")[0],
                counted(len(dataset["classes"]), "class", "classes"),
            )
        )
    if leaderboard.get("trials"):
        finished = sum(trial["rank"] is not None for trial in leaderboard["trials"])
        tiles.append(("Trials", str(len(leaderboard["trials"])), f"{finished} finished"))
    if spent := [usd for usd in costs(run).values() if usd is not None]:
        tiles.append(("Cost", dollars(sum(spent)), "of the jobs, estimated"))
    tiles.append(("Time", duration(run.course.seconds), counted(len(run.course.states), "state")))
    return tiles
