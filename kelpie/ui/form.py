"""The form that starts a run, made from contracts/execution_input.schema.json: its groups, fields and what is wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kelpie import documents, launch, settings
from kelpie.errors import InvalidInput

DATASET = "dataset"


@dataclass(frozen=True)
class Field:
    key: str
    """Dotted, as `--set` takes it."""
    label: str
    description: str
    expected: str
    default: str
    choices: tuple[str, ...]
    """Empty where anything may be typed."""
    numeric: bool


@dataclass(frozen=True)
class Group:
    key: str
    label: str
    description: str
    fields: tuple[Field, ...]
    groups: tuple[Group, ...]


def dataset_description() -> str:
    schema = documents.schema(settings.CONTRACT)
    return str(schema["properties"][DATASET]["description"])


def groups() -> list[Group]:
    """Return the settings as the schema groups them; those that stand alone come first, as `general`."""
    schema = documents.schema(settings.CONTRACT)
    alone = Group("general", "General", "", _fields(schema, ""), ())
    return [alone, *_groups(schema, "")]


def problems(dataset: str | None, given: Mapping[str, str]) -> dict[str, str]:
    """Return what is wrong by field. given: text by key, empty for the default; dataset: None if it is no matter."""
    found = {}
    for key, text in filled(given).items():
        try:
            setting, _file = settings.take_weights_file([f"{key}={text}"])
            settings.execution_input(setting, launch.NOT_UPLOADED_YET)
        except InvalidInput as error:
            found[key] = _without_option(str(error))
    if dataset is not None and not found:
        try:
            launch.prepare(dataset.strip(), assignments(given))
        except InvalidInput as error:
            found[DATASET] = str(error)
    if dataset is not None and not dataset.strip():
        found[DATASET] = "say which: a folder or an archive on this machine, or s3://bucket/folder/"
    return found


def assignments(given: Mapping[str, str]) -> list[str]:
    """Return the settings as `kelpie run --set` takes them."""
    return [f"{key}={text}" for key, text in filled(given).items()]


def filled(given: Mapping[str, str]) -> dict[str, str]:
    return {key: text.strip() for key, text in given.items() if text.strip()}


def _groups(schema: dict[str, Any], prefix: str) -> tuple[Group, ...]:
    return tuple(
        Group(
            f"{prefix}{name}",
            _label(name),
            rule.get("description", ""),
            _fields(rule, f"{prefix}{name}."),
            _groups(rule, f"{prefix}{name}."),
        )
        for name, rule in schema["properties"].items()
        if rule.get("type") == "object"
    )


def _fields(schema: dict[str, Any], prefix: str) -> tuple[Field, ...]:
    return tuple(
        _field(f"{prefix}{name}", rule)
        for name, rule in schema["properties"].items()
        if rule.get("type") != "object" and f"{prefix}{name}" != DATASET
    )


def _field(key: str, rule: dict[str, Any]) -> Field:
    choices = ("true", "false") if rule.get("type") == "boolean" else tuple(map(str, rule.get("enum", ())))
    expected = "" if choices or rule.get("type") == "string" else settings.expectation(rule)
    return Field(
        key=key,
        label=_label(key.rpartition(".")[2]),
        description=rule.get("description", ""),
        expected=expected,
        default=_text(rule.get("default")),
        choices=choices,
        numeric=rule.get("type") in ("integer", "number"),
    )


def _label(name: str) -> str:
    """Names of rules are names: they stay as they are."""
    return name if name[0].isupper() else name.replace("_", " ").capitalize()


def _text(default: Any) -> str:
    if isinstance(default, list):
        return ", ".join(map(str, default))
    return "" if default is None else default if isinstance(default, str) else json.dumps(default)


def _without_option(message: str) -> str:
    """What `--set KEY=VALUE:` says of it, without the option: the field says which."""
    return message.partition(": ")[2] if message.startswith("--set ") else message
