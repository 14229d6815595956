"""Documents that runs and the inbox leave in S3, validated by their contract where they are read."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastjsonschema

from kelpie.errors import RunFailed

CONTRACTS = Path(__file__).parents[1] / "contracts"


def read(s3: Any, uri: str, contract: str) -> dict[str, Any] | None:
    """Return the document at `uri`, or None if there is none. Raises RunFailed if it breaks its contract."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    try:
        document = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        return validator(contract)(document)
    except s3.exceptions.NoSuchKey:
        return None
    except (ValueError, fastjsonschema.JsonSchemaValueException) as error:
        raise RunFailed(f"{uri} is not what contracts/{contract}.schema.json says: {error}") from error


@functools.cache
def schema(contract: str) -> dict[str, Any]:
    """Return contracts/<contract>.schema.json, which is not to be changed."""
    return json.loads((CONTRACTS / f"{contract}.schema.json").read_text(encoding="utf-8"))


@functools.cache
def validator(contract: str) -> Callable[[Any], Any]:
    """Return what takes a document and raises fastjsonschema's JsonSchemaValueException if it breaks its contract."""
    return fastjsonschema.compile(schema(contract), use_default=False)
