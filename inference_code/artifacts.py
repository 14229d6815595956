"""The artifact's documents and files: read whole, by their contracts and digests, or not at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import fastjsonschema

CONTRACTS = Path(__file__).parent / "contracts"


class ArtifactError(Exception):
    """The artifact cannot be served: incomplete, inconsistent, or it does not give its own golden answers."""


def read_document(root: Path, name: str) -> dict[str, Any]:
    """Return `name`.json at the artifact's root by its contract. Raises ArtifactError."""
    path = root / f"{name}.json"
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error
    _validate(document, name, path)
    return document


def write_document(root: Path, name: str, document: dict[str, Any]) -> None:
    """Write `name`.json to a folder by its contract. Raises ArtifactError."""
    path = root / f"{name}.json"
    _validate(document, name, path)
    root.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")


def read_file(root: Path, name: str, sha256: str | None = None) -> bytes:
    """Return a file that one of the documents names. Raises ArtifactError if it is elsewhere or another."""
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()) or not path.is_file():
        raise ArtifactError(f"model.json or serving.json names {name!r}, which is not a file of the artifact at {root}")
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest() if sha256 else None
    if digest != sha256:
        raise ArtifactError(f"{path} has the SHA-256 {digest}, model.json says {sha256}: rebuild the artifact")
    return content


def _validate(document: Any, name: str, path: Path) -> None:
    contract = CONTRACTS / f"{name}.schema.json"
    try:
        fastjsonschema.compile(json.loads(contract.read_bytes()))(document)
    except fastjsonschema.JsonSchemaException as error:
        raise ArtifactError(f"{path} does not keep contracts/{contract.name}: {error}") from error
