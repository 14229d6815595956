"""The pages: each one file without scripts, whose every text is escaped by its template."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import data
import deployment
import evaluation
import gate
import lineage
import path
import profiler
import serving
import training
import tuning
from failure import Failure
from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError
from markupsafe import Markup
from outcome import heading, outcome
from run import Run

Section = Callable[[Run], dict[str, Any] | None]
UNREADABLE = (ArithmeticError, AttributeError, LookupError, TemplateError, TypeError, ValueError)
"""What a document that is not as its contract says may lead to."""
FOLDER = Path(__file__).parent
RUN = (
    ("path", "Path", path.section),
    ("data", "Data", data.section),
    ("tuning", "Tuning", tuning.section),
    ("training", "Training", training.section),
    ("evaluation", "Evaluation", evaluation.section),
    ("serving", "Serving", serving.section),
    ("gate", "Gate", gate.section),
    ("deployment", "Deployment", deployment.section),
    ("lineage", "Lineage", lineage.section),
)
PROFILE = (
    ("steps", "Steps", profiler.steps),
    ("utilisation", "Machine", profiler.utilisation),
    ("operators", "Operators", profiler.operators),
    ("curves", "Curves", profiler.curves_of),
    ("rules", "Rules", profiler.rule_table),
)


def render(run: Run) -> str:
    """Return the run's page."""
    summary, problems = heading(run), list(run.left.problems)
    try:
        summary = outcome(run)
    except UNREADABLE as error:
        problems.append(_without("The outcome in figures", error))
    return _page(run, RUN, summary, problems, run.failure)


def render_profile(run: Run) -> str | None:
    """Return the profiler's page, if the training left a profile that can be read."""
    if not run.document("profile"):
        return None
    try:
        summary = profiler.summary(run)
    except UNREADABLE:  # the run's page says that it does not keep its contract
        return None
    return _page(run, PROFILE, summary, list(run.left.problems), None)


def _page(
    run: Run,
    kinds: Sequence[tuple[str, str, Section]],
    summary: dict[str, Any],
    problems: list[str],
    failure: Failure | None,
) -> str:
    """Put a page together. A document that lacks what its section needs costs that section, and the page says so."""
    sections = []
    for name, title, section in kinds:
        try:
            content = section(run)
            if content:
                sections.append(
                    {"name": name, "title": title, "html": Markup(_template(f"{name}.html").render(content))}
                )
        except UNREADABLE as error:
            problems.append(_without(f"The section {title}", error))
    return _template("page.html").render(
        run=run, outcome=summary, failure=failure, sections=sections, problems=problems
    )


def _without(what: str, error: Exception) -> str:
    return f"{what} is missing: {type(error).__name__}: {error}"


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
