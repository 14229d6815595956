"""A run as the page tells of it."""

from dataclasses import dataclass
from typing import Any

from failure import Failure
from history import Course
from left import Left
from wording import Console


@dataclass(frozen=True)
class Run:
    run_id: str
    execution_arn: str
    model_package_arn: str | None
    failure: Failure | None
    course: Course
    definition: dict[str, Any]
    left: Left

    def document(self, name: str) -> dict[str, Any]:
        """Return a document of the run, empty if it left none."""
        found: dict[str, Any] = self.left.documents.get(name, {})
        return found

    @property
    def plan(self) -> dict[str, Any]:
        return self.document("plan")

    @property
    def console(self) -> Console:
        return Console(self.execution_arn)
