"""Requests and responses against botocore's own model of SageMaker, or of another service of the same protocol.

botocore's client checks types and required members only; the service checks everything that the model says: lengths,
ranges, patterns and enumerations too, and reports all violations at once, in AWS's words. What the model allows but
this service does not honour is refused by `refuse_unsupported`, by name.
"""

import functools
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import botocore.session
from botocore.model import OperationModel, Shape

from localcloud.sagemaker.errors import ServiceError, unsupported, validation_error

Violation = tuple[str, str]  # (where, as "inputDataConfig.1.member.channelName", and what constraint it fails)


SAGEMAKER = "sagemaker"


@functools.cache
def operation(action: str, service: str = SAGEMAKER) -> OperationModel:
    """Return botocore's model of an action. Raises ServiceError UnknownOperationException if the service has none of
    that name.
    """
    model = _service_model(service)
    if action not in model.operation_names:
        raise ServiceError("UnknownOperationException", f"{model.service_id} has no operation {action!r}", 404)
    return model.operation_model(action)


def validate(action: str, parameters: object, service: str = SAGEMAKER) -> dict[str, Any]:
    """Return the parameters of a request, timestamps as aware datetimes.

    Raises ServiceError SerializationException for a value of a wrong type and ValidationException for all else."""
    shape = operation(action, service).input_shape
    if shape is None:
        return {}
    violations: list[Violation] = []
    checked = _check(shape, parameters, "", violations)
    if violations:
        count = f"{len(violations)} validation error{'s' if len(violations) > 1 else ''} detected"
        raise validation_error(f"{count}: {'; '.join(text for _, text in violations)}")
    return checked


def shaped(action: str, response: Mapping[str, Any], service: str = SAGEMAKER) -> dict[str, Any]:
    """Return only what the action's output shape knows of `response`; members that are None are left out."""
    shape = operation(action, service).output_shape
    return {} if shape is None else _shape(shape, response)


def serialise(response: Mapping[str, Any]) -> bytes:
    """Return a shaped response as the body of SageMaker's protocol, JSON 1.1: timestamps are seconds since 1970, to
    the millisecond.
    """
    return json.dumps(response, default=_epoch_seconds, allow_nan=False).encode()


@dataclass(frozen=True)
class Support:
    """What a service honours of an action's input. Paths are of the form
    `InputDataConfig[].DataSource.S3DataSource.S3Uri`.

    A path in `honoured` or `ignored` covers all that is below it; `ignored` gives the reason for each; `only` lists
    the values that are honoured of a field, and why there are no others. Whatever is in none of them is refused.
    """

    honoured: frozenset[str]
    only: Mapping[str, tuple[tuple[Any, ...], str]] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)


def refuse_unsupported(action: str, parameters: Mapping[str, Any], support: Support) -> None:
    """Raise ServiceError UnsupportedOperation naming the first field (or value) that `support` does not list."""
    for path, value in _leaves(parameters, ""):
        covering = {path, *(path[:end] for end in _ends_of_prefixes(path))}
        limited = next((support.only[prefix] for prefix in covering if prefix in support.only), None)
        if limited is not None:
            values, reason = limited
            if value not in values:
                raise unsupported(f"{action}: {path}={json.dumps(value, default=str)}", reason)
        elif not covering & (support.honoured | support.ignored.keys()):
            raise unsupported(f"{action}: the parameter {path}", "it is not implemented; leave it out")


# --- requests ------------------------------------------------------------------


@functools.cache
def _service_model(service: str) -> Any:
    return botocore.session.get_session().get_service_model(service)


def _check(shape: Shape, value: Any, path: str, violations: list[Violation]) -> Any:
    checker = _CHECKERS.get(shape.type_name)
    if checker is None:
        raise TypeError(f"no check for shapes of type {shape.type_name}: {shape.name}")
    return checker(shape, value, path, violations)


def _check_structure(shape: Any, value: Any, path: str, violations: list[Violation]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong_type(path, value, "a structure")
    given = {name: member for name, member in value.items() if member is not None}
    for name in shape.required_members:
        if name not in given:
            _violate(violations, _join(path, name), None, "Member must not be null")
    for name in given:
        if name not in shape.members:
            known = ", ".join(shape.members)
            violations.append((path, f"Unknown parameter '{name}' at '{path or 'input'}', must be one of: {known}"))
    if shape.metadata.get("union") and len(given) != 1:
        _violate(violations, path, sorted(given), "Exactly one member of the union must be set")
    return {name: _check(shape.members[name], member, _join(path, name), violations)
            for name, member in given.items() if name in shape.members}  # fmt: skip


def _check_list(shape: Any, value: Any, path: str, violations: list[Violation]) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise _wrong_type(path, value, "a list")
    _check_length(shape, value, path, violations)
    return [_check(shape.member, item, f"{path}.{index}.member", violations) for index, item in enumerate(value, 1)]


def _check_map(shape: Any, value: Any, path: str, violations: list[Violation]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong_type(path, value, "a map")
    _check_length(shape, value, path, violations)
    checked = {}
    for key, item in value.items():
        within: list[Violation] = []
        _check(shape.key, key, f"{path}.key", within)
        violations += [(where, text.replace("Member", "Map keys", 1)) for where, text in within]
        checked[key] = _check(shape.value, item, f"{path}.{key}.member", violations)
    return checked


def _check_string(shape: Any, value: Any, path: str, violations: list[Violation]) -> str:
    if not isinstance(value, str):
        raise _wrong_type(path, value, "a string")
    if shape.enum and value not in shape.enum:
        _violate(violations, path, value, f"Member must satisfy enum value set: [{', '.join(shape.enum)}]")
    _check_length(shape, value, path, violations)
    pattern = shape.metadata.get("pattern")
    if pattern and not _matches(pattern, value):
        _violate(violations, path, value, f"Member must satisfy regular expression pattern: {pattern}")
    return value


def _check_integer(shape: Any, value: Any, path: str, violations: list[Violation]) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong_type(path, value, "an integer")
    _check_range(shape, value, path, violations)
    return value


def _check_float(shape: Any, value: Any, path: str, violations: list[Violation]) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong_type(path, value, "a number")
    _check_range(shape, value, path, violations)
    return float(value)


def _check_boolean(_shape: Any, value: Any, path: str, _violations: list[Violation]) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type(path, value, "a boolean")
    return value


def _check_timestamp(_shape: Any, value: Any, path: str, _violations: list[Violation]) -> datetime:
    try:
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str):
            parsed = datetime.fromisoformat(value)
            return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        pass
    raise _wrong_type(path, value, "a timestamp")


_CHECKERS = {
    "structure": _check_structure,
    "list": _check_list,
    "map": _check_map,
    "string": _check_string,
    "integer": _check_integer,
    "long": _check_integer,
    "float": _check_float,
    "double": _check_float,
    "boolean": _check_boolean,
    "timestamp": _check_timestamp,
}


def _check_length(shape: Any, value: Any, path: str, violations: list[Violation]) -> None:
    if len(value) < shape.metadata.get("min", 0):
        bound = shape.metadata["min"]
        _violate(violations, path, value, f"Member must have length greater than or equal to {bound}")
    if len(value) > shape.metadata.get("max", len(value)):
        _violate(violations, path, value, f"Member must have length less than or equal to {shape.metadata['max']}")


def _check_range(shape: Any, value: float, path: str, violations: list[Violation]) -> None:
    if value < shape.metadata.get("min", value):
        _violate(violations, path, value, f"Member must have value greater than or equal to {shape.metadata['min']}")
    if value > shape.metadata.get("max", value):
        _violate(violations, path, value, f"Member must have value less than or equal to {shape.metadata['max']}")


def _violate(violations: list[Violation], path: str, value: Any, constraint: str) -> None:
    shown = "null" if value is None else f"'{value}'"
    violations.append((path, f"Value {shown} at '{path}' failed to satisfy constraint: {constraint}"))


def _wrong_type(path: str, value: Any, expected: str) -> ServiceError:
    return ServiceError(
        "SerializationException", f"{type(value).__name__} at '{path or 'input'}' cannot be read as {expected}"
    )


def _join(path: str, member: str) -> str:
    name = member[:1].lower() + member[1:]
    return f"{path}.{name}" if path else name


def _matches(pattern: str, value: str) -> bool:
    expression = _expression(pattern, value.isascii())
    return expression is None or expression.fullmatch(value) is not None


@functools.cache
def _expression(pattern: str, ascii_only: bool) -> re.Pattern[str] | None:
    """Return the model's pattern, which is Java's, for Python; None for the few that cannot be read as they stand."""

    def characters(match: re.Match[str]) -> str:
        before, listed = pattern[: match.start()], _category(match[1], ascii_only)
        return listed if before.rfind("[") > before.rfind("]") else f"[{listed}]"

    translated = re.sub(r"\\p\{(\w+)\}", characters, pattern)
    try:
        return re.compile(translated)
    except re.error:
        return None


_POSIX = {"Alnum": "a-zA-Z0-9", "Print": " -~"}  # ASCII only, in Java


@functools.cache
def _category(name: str, ascii_only: bool) -> str:
    """Return the characters of a Unicode category (`L`, `N`, `Z`, ...) as ranges that can stand inside brackets."""
    if name in _POSIX:
        return _POSIX[name]
    ranges: list[list[int]] = []
    for code in range(128 if ascii_only else 0x110000):
        if unicodedata.category(chr(code)).startswith(name):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges) or "\\U0010ffff"


# --- responses ------------------------------------------------------------------


def _shape(shape: Any, value: Any) -> Any:
    if shape.type_name == "structure":
        return {
            name: _shape(member, value[name]) for name, member in shape.members.items() if value.get(name) is not None
        }
    if shape.type_name == "list":
        return [_shape(shape.member, item) for item in value]
    if shape.type_name == "map":
        return {key: _shape(shape.value, item) for key, item in value.items()}
    return value


def _epoch_seconds(value: object) -> float:
    if isinstance(value, datetime):
        return round(value.timestamp(), 3)
    raise TypeError(f"a response cannot hold {type(value).__name__}")


# --- what is honoured ------------------------------------------------------------------


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, member in value.items():
            yield from _leaves(member, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value:
        for item in value:
            yield from _leaves(item, f"{path}[]")
    elif path:
        yield path, value


def _ends_of_prefixes(path: str) -> Iterator[int]:
    for match in re.finditer(r"\.|\[\]", path):
        yield match.start()
        if match[0] == "[]":
            yield match.end()
