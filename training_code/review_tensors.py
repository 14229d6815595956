"""Run the rules afterwards, on the tensors that hooks have left in a folder: these or others of smdebug's.

By hand, where train.py left its output in out/:

    python training_code/review_tensors.py --tensors out/smdebug --output_data_dir reviewed

It prints what each rule came to and leaves it in findings.json, with the same curves as a training's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curves import Curves
from findings import empty_document, line, of_hooks, write_findings
from job import JobError, run
from options import Parser, rule_parameters


class TensorsMissing(JobError):
    """The folder holds no tensors of smdebug's."""


def main() -> None:
    """Review as the command line says."""
    parser = Parser(__doc__)
    parser.add_argument("--tensors", type=Path, required=True, help="smdebug's output: collections/, events/, index/")
    parser.folder("output_data_dir", "SM_OUTPUT_DATA_DIR", "where findings.json goes")
    parser.add_argument(
        "--parameters",
        type=rule_parameters,
        default={},
        help="of rules, Rule.parameter=value with commas, instead of their defaults (default: none)",
    )
    given = parser.parse(None)
    document = review_tensors(given.tensors, given.parameters)
    for found in document["findings"]:
        print(line(found), flush=True)
    write_findings(document, [given.output_data_dir] if given.output_data_dir else [])


def review_tensors(folder: Path, parameters: Mapping[str, Mapping[str, float | bool]]) -> dict[str, Any]:
    """Return findings.json of what hooks wrote to a folder. Raises TensorsMissing, ParameterError."""
    if not (folder / "collections").is_dir():
        raise TensorsMissing(f"{folder} has no collections/: name the folder that smdebug wrote, such as out/smdebug")
    from debugger import FolderTrial  # smdebug imports pandas, and fails on its own terms
    from rules.review import Review

    trial = FolderTrial(folder)
    review, curves = Review(trial, parameters), Curves()
    document = empty_document("review_tensors.py")
    for step in trial.steps:
        saved = trial.at(step)
        curves.look(saved)
        review.invoke(step)
        document["steps"] = saved.step + 1
    document["tensors"], document["tensors_saved"] = str(folder), len(trial.names)
    document["findings"] = [of_hooks(None, len(trial.names)), *review.conclude()]
    document["curves"], document["gradient_norms"] = curves.curves(), curves.gradient_norms()
    return document


if __name__ == "__main__":
    run(main)
