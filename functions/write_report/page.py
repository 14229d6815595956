"""The run's page: one file without scripts, whose every text is escaped by its template, from whatever the run left."""

import functools
from pathlib import Path
from typing import Any

import data
import deployment
import evaluation
import gate
import lineage
import path
import training
import tuning
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from outcome import outcome
from run import Run

FOLDER = Path(__file__).parent
SECTIONS = (
    ("path", "Path", path.section),
    ("data", "Data", data.section),
    ("tuning", "Tuning", tuning.section),
    ("training", "Training", training.section),
    ("evaluation", "Evaluation", evaluation.section),
    ("gate", "Gate", gate.section),
    ("deployment", "Deployment", deployment.section),
    ("lineage", "Lineage", lineage.section),
)


def render(run: Run) -> str:
    """Return the page. A document that lacks what its section needs costs that section, and the page says so."""
    sections, problems = [], list(run.left.problems)
    for name, title, section in SECTIONS:
        try:
            content = section(run)
            if content:
                sections.append(
                    {"name": name, "title": title, "html": Markup(_template(f"{name}.html").render(content))}
                )
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            problems.append(f"The section {title} is missing: {type(error).__name__}: {error}")
    return _template("page.html").render(run=run, outcome=outcome(run), sections=sections, problems=problems)


def _template(name: str) -> Any:
    return _environment().get_template(name)


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["style"] = Markup((FOLDER / "templates" / "page.css").read_text(encoding="utf-8"))
    return environment
