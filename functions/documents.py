"""The run's JSON documents in S3: each is held against its contract where it is read and where it is written.

Every function that needs it carries this file and `contracts/` by a link, which the build follows.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastjsonschema
from botocore.exceptions import ClientError

CONTRACTS = Path(__file__).parent / "contracts"


class DocumentMissing(Exception):
    """A document that an earlier state should have left is not there."""


class DocumentInvalid(Exception):
    """A document does not keep its contract."""


def read(s3: Any, uri: str, contract: str) -> dict[str, Any]:
    """Return the document at an s3:// URI. Raises DocumentMissing or DocumentInvalid."""
    bucket, key = split_uri(uri)
    try:
        body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "NoSuchBucket", "404"):
            raise DocumentMissing(f"{uri} is not there; the state that writes it must have failed") from error
        raise
    try:
        document = json.loads(body)
    except ValueError as error:
        raise DocumentInvalid(f"{uri} is not JSON: {error}") from error
    return checked(document, contract, uri)


def write(s3: Any, uri: str, contract: str, document: dict[str, Any]) -> None:
    """Put the document at an s3:// URI. Raises DocumentInvalid before anything is written."""
    bucket, key = split_uri(uri)
    body = json.dumps(checked(document, contract, uri), indent=2, ensure_ascii=False).encode()
    s3.put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/json")


def checked(document: Any, contract: str, where: str) -> dict[str, Any]:
    """Return the document if it keeps the contract. Raises DocumentInvalid, which names the key."""
    try:
        return validator(contract)(document)
    except fastjsonschema.JsonSchemaValueException as error:
        raise DocumentInvalid(f"{where} does not keep the contract {contract}: {error.message}") from error


def split_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of an s3:// URI."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


@functools.cache
def schema(contract: str) -> dict[str, Any]:
    """Return contracts/<contract>.schema.json, which is not to be changed."""
    return json.loads((CONTRACTS / f"{contract}.schema.json").read_text(encoding="utf-8"))


@functools.cache
def validator(contract: str) -> Callable[[Any], dict[str, Any]]:
    """Return what takes a document and raises fastjsonschema's JsonSchemaValueException if it breaks its contract."""
    return fastjsonschema.compile(schema(contract), use_default=False)
