"""`--set tuning.max_jobs=6`: settings of a run, checked by contracts/execution_input.schema.json before it starts."""

from __future__ import annotations

import difflib
import json
import re
from pathlib import Path
from typing import Any

import fastjsonschema

from kelpie import documents
from kelpie.errors import InvalidInput

WEIGHTS = "model.weights="
WEIGHTS_WORDS = ("default", "none")
WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt")
RULE_PARAMETERS = "debugger.parameters."
CONTRACT = "execution_input"


def execution_input(assignments: list[str], dataset: str) -> dict[str, Any]:
    """Return the execution's input: `dataset` and what `assignments` (`key=value`, dotted keys) set, and no more.

    Defaults are not filled in: they are the state machine's to give. A value is read as JSON where the schema allows
    anything but text there, and a list also as `64,128`. The last of two values for one key counts.
    Raises InvalidInput naming the key, with near matches for an unknown one and the range for a value outside it.
    """
    schema = documents.schema(CONTRACT)
    document: dict[str, Any] = {"dataset": dataset}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise InvalidInput(f"--set {assignment}: expected key=value, such as --set tuning.max_jobs=6")
        _assign(document, key, _value(text, _rule(key, schema)))
    _validate(document)
    return document


def take_weights_file(assignments: list[str]) -> tuple[list[str], Path | None]:
    """Return the assignments without a `model.weights` that names a file on this machine, and that file, if any."""
    files = {assignment: _weights_path(assignment) for assignment in assignments if _is_weights_file(assignment)}
    kinds = ", ".join(WEIGHTS_SUFFIXES)
    for given in assignments:
        name = given.removeprefix(WEIGHTS)
        if given not in files and name != given and name not in WEIGHTS_WORDS and not name.startswith("s3://"):
            raise InvalidInput(
                f"--set {given}: there is no such file; expected {' or '.join(WEIGHTS_WORDS)}, a file that ends in "
                f"{kinds}, or such an object as an s3:// URI"
            )
    for file in files.values():
        if file.suffix not in WEIGHTS_SUFFIXES:
            raise InvalidInput(f"--set {WEIGHTS}{file}: expected a file that ends in {kinds}")
    return [assignment for assignment in assignments if assignment not in files], next(reversed(files.values()), None)


def _is_weights_file(assignment: str) -> bool:
    return assignment.startswith(WEIGHTS) and _weights_path(assignment).is_file()


def _weights_path(assignment: str) -> Path:
    """No shell expands a `~` after the `=`."""
    return Path(assignment.removeprefix(WEIGHTS)).expanduser()


def check_rule_parameter(assignment: str) -> None:
    """Raise InvalidInput unless `assignment`, `Rule.parameter=value`, is one that a run takes below this group."""
    if "=" not in assignment:
        raise InvalidInput(f"--parameter {assignment}: expected Rule.parameter=value, such as Overfit.patience=3")
    try:
        execution_input([f"{RULE_PARAMETERS}{assignment}"], "s3://any-bucket/")
    except InvalidInput as error:
        said = str(error).replace("--set ", "--parameter ", 1).replace(RULE_PARAMETERS, "")
        raise InvalidInput(said) from error


def rules() -> dict[str, dict[str, Any]]:
    """Return the schema of each setting by its dotted key, in the schema's order; the data set is none."""
    return {key: rule for key, rule in _leaves(documents.schema(CONTRACT)) if key != "dataset"}


def _rule(key: str, schema: dict[str, Any]) -> dict[str, Any]:
    settable = {name: rule for name, rule in _leaves(schema) if name != "dataset"}
    if key in settable:
        return settable[key]
    if key == "dataset":
        raise InvalidInput("--set dataset: the data set is the argument: kelpie run DATASET")
    below = [name for name in settable if name.startswith(f"{key}.")]
    if below:
        raise InvalidInput(f"--set {key}: is a group, set one of {', '.join(below)}")
    near = difflib.get_close_matches(key, settable, n=3, cutoff=0.5) or [
        name for name in settable if name.rpartition(".")[2] == key.rpartition(".")[2]
    ]
    groups = sorted({name.partition(".")[0] for name in settable})
    remedy = f"did you mean {' or '.join(near)}?" if near else f"settings, and groups of them: {', '.join(groups)}"
    raise InvalidInput(f"--set {key}: there is no such setting; {remedy}")


def _leaves(schema: dict[str, Any], prefix: str = "") -> list[tuple[str, dict[str, Any]]]:
    found = []
    for name, rule in schema["properties"].items():
        path = f"{prefix}{name}"
        if rule.get("type") == "object":
            found += _leaves(rule, f"{path}.")
        else:
            found.append((path, rule))
    return found


def _value(text: str, rule: dict[str, Any]) -> Any:
    if rule["type"] == "string":
        return text
    if rule["type"] == "array" and not text.startswith("["):
        text = f"[{text}]"
    try:
        return json.loads(text, parse_constant=_no_number)
    except json.JSONDecodeError:
        return text


def _no_number(name: str) -> str:
    """NaN and Infinity pass every comparison: keep them as text, which no number's rule takes."""
    return name


def _assign(document: dict[str, Any], key: str, value: Any) -> None:
    *groups, name = key.split(".")
    for group in groups:
        document = document.setdefault(group, {})
    document[name] = value


def _validate(document: dict[str, Any]) -> None:
    try:
        documents.validator(CONTRACT)(document)
    except fastjsonschema.JsonSchemaValueException as error:
        key = re.sub(r"\.(\d+)$", r"[\1]", ".".join(map(str, error.path[1:])))
        if key == "dataset":
            raise InvalidInput(
                f"{error.value!r} is not a data set: give a folder, or an S3 URI such as s3://bucket/folder/"
            ) from error
        raise InvalidInput(f"--set {key}={_shown(error.value)}: expected {expectation(error.definition)}") from error


def expectation(rule: dict[str, Any]) -> str:
    """Say in words what values `rule`, a JSON Schema of one value, takes: `an integer from 1 to 500`."""
    if "enum" in rule:
        return f"one of {', '.join(rule['enum'])}"
    if rule["type"] == "array":
        return f"a list of at least {rule['minItems']}, without repeats, each {expectation(rule['items'])}"
    if rule["type"] == "boolean":
        return "true or false"
    if rule["type"] == "string":
        return f"{rule['description'].rstrip('.')} (text matching {rule['pattern']})"
    noun = {"integer": "an integer", "number": "a number"}[rule["type"]]
    bounds = []
    if "exclusiveMinimum" in rule:
        bounds.append(f"above {rule['exclusiveMinimum']}")
    if "minimum" in rule:
        bounds.append(f"from {rule['minimum']}")
    if "maximum" in rule:
        bounds.append(f"to {rule['maximum']}" if "minimum" in rule else f"at most {rule['maximum']}")
    return " ".join([noun, " and ".join(bounds) if "exclusiveMinimum" in rule else " ".join(bounds)]).strip()


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
