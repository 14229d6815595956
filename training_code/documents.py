"""JSON documents between the jobs: read and written by their contracts (contracts/*.schema.json)."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastjsonschema
from job import JobError

CONTRACTS = Path(__file__).parent / "contracts"


class DocumentError(JobError):
    """A document is missing, is no JSON, or does not keep its contract."""


def read_document(path: Path, contract: str) -> dict[str, Any]:
    """Read a document by its contract, such as `manifest`. Raises DocumentError."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DocumentError(f"{path} cannot be read: {error}") from error
    _validate(document, contract, path)
    return document


def write_document(path: Path, document: dict[str, Any], contract: str) -> None:
    """Write a document that keeps its contract. Raises DocumentError."""
    _validate(document, contract, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")


def _validate(document: Any, contract: str, path: Path) -> None:
    try:
        _validator(contract)(document)
    except fastjsonschema.JsonSchemaException as error:
        raise DocumentError(f"{path} does not keep contracts/{contract}.schema.json: {error}") from error


@functools.cache
def _validator(contract: str) -> Callable[[Any], Any]:
    return fastjsonschema.compile(json.loads((CONTRACTS / f"{contract}.schema.json").read_bytes()))
