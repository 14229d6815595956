"""Metrics of a job, found in its log by the regular expressions of its metric definitions."""

import math
import re
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from localcloud.sagemaker.errors import validation_error


class Metrics:
    """Fed with log lines as they come; safe to read meanwhile."""

    def __init__(self, definitions: Sequence[Mapping[str, str]]):
        self._expressions = compile_definitions(definitions)
        self._history: dict[str, list[tuple[datetime, float]]] = {}
        self._lock = threading.Lock()

    def read(self, line: str, when: datetime) -> None:
        """Take in every match of a line: the first group is the value; what is no finite number is no value."""
        for name, expression in self._expressions:
            for match in expression.finditer(line):
                value = _number(match[1])
                if value is not None:
                    with self._lock:
                        self._history.setdefault(name, []).append((when, value))

    def history(self) -> dict[str, list[tuple[datetime, float]]]:
        with self._lock:
            return {name: list(values) for name, values in self._history.items()}

    def final(self) -> list[dict[str, Any]]:
        """The last value of each, as a FinalMetricDataList."""
        return [
            {"MetricName": name, "Value": values[-1][1], "Timestamp": values[-1][0]}
            for name, values in self.history().items()
        ]


def compile_definitions(definitions: Sequence[Mapping[str, str]]) -> list[tuple[str, re.Pattern[str]]]:
    """Raises ServiceError ValidationException for an expression that cannot be read or captures nothing."""
    compiled = []
    for definition in definitions:
        try:
            expression = re.compile(definition["Regex"])
        except re.error as error:
            raise validation_error(
                f"Invalid metric definition {definition['Name']!r}: "
                f"the Regex {definition['Regex']!r} cannot be read: {error}"
            ) from error
        if expression.groups < 1:
            raise validation_error(
                f"Invalid metric definition {definition['Name']!r}: "
                f"the Regex {definition['Regex']!r} has no group for the value"
            )
        compiled.append((definition["Name"], expression))
    return compiled


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
