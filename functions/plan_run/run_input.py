"""The input of an execution: every default filled in, every value in range, or an error that says what to change."""

import copy
import difflib
import json
import math
from typing import Any

import documents
import fastjsonschema

CONTRACT = "execution_input"


class InvalidInput(Exception):
    """The execution input cannot be run. The message names the key, the value and what is allowed."""


def complete(
    given: Any, name_prefix: str, default_instances: dict[str, str], default_scaling: dict[str, int]
) -> dict[str, Any]:
    """Return the input with every default filled in. default_scaling: of keys of `serving`. Raises InvalidInput."""
    if not isinstance(given, dict):
        raise InvalidInput(f"the input must be a JSON object with at least the key dataset, not {_shown(given)}")
    run_input = _filled(copy.deepcopy(given), documents.schema(CONTRACT))
    try:
        documents.validator(CONTRACT)(run_input)
    except fastjsonschema.JsonSchemaValueException as error:
        raise InvalidInput(_explained(error)) from error
    run_input = _integral(run_input, documents.schema(CONTRACT))
    if not run_input["dataset"].lower().endswith(".zip"):
        run_input["dataset"] = run_input["dataset"].rstrip("/") + "/"
    run_input.setdefault("endpoint_name", name_prefix)
    run_input["instances"] = default_instances | run_input["instances"]
    # What is measured there is to hold on the endpoint.
    run_input["instances"].setdefault("optimize", run_input["instances"]["endpoint"])
    from_scratch = run_input["model"]["weights"] == "none"
    run_input["tuning"].setdefault("mode", "full" if from_scratch else "frozen_features")
    fine_tuned = run_input["tuning"]["mode"] == "frozen_features" and run_input["training"]["unfreeze"] != "head"
    run_input["training"].setdefault("epochs", 6 if fine_tuned else 20)
    run_input["training"].setdefault("augmentation", "gentle" if from_scratch else "cut")
    run_input["serving"].setdefault("variant", "float32" if from_scratch else "fastest")
    run_input["serving"] = default_scaling | run_input["serving"]
    _check_across_keys(run_input, name_prefix)
    return run_input


def check_deploy_seconds(run_input: dict[str, Any], needed: int, deadline: int) -> None:
    """Raise InvalidInput where the state machine would give a deploy up that SageMaker still waits for."""
    serving = run_input["serving"]
    if needed > deadline:
        raise InvalidInput(
            f"serving.startup_timeout_seconds {serving['startup_timeout_seconds']} and serving.bake_seconds "
            f"{serving['bake_seconds']} let a deploy take {needed} s, but the stack gives it up after {deadline} s: "
            "lower them, or raise the stack's parameter EndpointDeadlineSeconds"
        )


def check_batch_sizes(run_input: dict[str, Any], training_images: int) -> None:
    """Raise InvalidInput where a trial could be given a batch that the training split cannot fill, or the final
    training one that leaves an instance without an image."""
    largest = max(run_input["tuning"]["ranges"]["batch_size"])
    if largest > training_images:
        raise InvalidInput(
            f"tuning.ranges.batch_size holds {largest}, but the training split has only {training_images} images: "
            f"choose batch sizes of at most {training_images}"
        )
    smallest, instances = min(run_input["tuning"]["ranges"]["batch_size"]), run_input["training"]["instance_count"]
    if smallest < instances:
        raise InvalidInput(
            f"tuning.ranges.batch_size holds {smallest}, but training.instance_count {instances} instances share each "
            f"batch: choose batch sizes of at least {instances}"
        )


def _check_across_keys(run_input: dict[str, Any], name_prefix: str) -> None:
    tuning = run_input["tuning"]
    for name, bounds in tuning["ranges"].items():
        if name == "batch_size":
            continue
        where = f"tuning.ranges.{name}"
        if bounds["min"] >= bounds["max"]:
            raise InvalidInput(f"{where}: min {bounds['min']} must be below max {bounds['max']}")
        if bounds["scaling"] == "ReverseLogarithmic" and bounds["max"] >= 1:
            raise InvalidInput(f"{where}: scaling ReverseLogarithmic needs a max below 1, not {bounds['max']}")
    if tuning["mode"] == "frozen_features" and run_input["model"]["weights"] == "none":
        raise InvalidInput(
            "tuning.mode 'frozen_features' needs a trained backbone, but model.weights is 'none': "
            "use tuning.mode 'full', or give weights"
        )
    most, least = run_input["serving"]["max_instance_count"], run_input["serving"]["instance_count"]
    if most and most < least:
        raise InvalidInput(
            f"serving.max_instance_count: {most} must be 0, for no auto scaling, or at least "
            f"serving.instance_count {least}"
        )
    if run_input["serving"]["traffic"] == "canary" and least < 2:
        # https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_TrafficRoutingConfig.html
        raise InvalidInput(
            "serving.traffic: a canary is at most half of the instances, but serving.instance_count is 1: raise it to "
            "2 or more, or leave traffic at 'all_at_once'"
        )
    endpoint_name = run_input["endpoint_name"]
    if endpoint_name != name_prefix and not endpoint_name.startswith(f"{name_prefix}-"):
        raise InvalidInput(
            f"endpoint_name: {_shown(endpoint_name)} must be {name_prefix!r} or begin with {name_prefix + '-'!r}: "
            "the stack's roles are granted no other endpoint"
        )


def _filled(value: Any, schema: dict[str, Any]) -> Any:
    # fastjsonschema fills a default in only one level deep: an object that it adds itself stays empty.
    if isinstance(value, dict):
        for key, property_schema in schema.get("properties", {}).items():
            if key not in value and "default" in property_schema:
                value[key] = copy.deepcopy(property_schema["default"])
            if key in value:
                value[key] = _filled(value[key], property_schema)
    return value


def _integral(value: Any, schema: dict[str, Any]) -> Any:
    # JSON Schema takes 10.0 for an integer; a script's option --epochs 10.0 would not.
    if isinstance(value, dict):
        return {key: _integral(item, schema["properties"][key]) for key, item in value.items()}
    if isinstance(value, list):
        return [_integral(item, schema["items"]) for item in value]
    return int(value) if schema["type"] == "integer" else value


def _explained(error: fastjsonschema.JsonSchemaValueException) -> str:
    path = ".".join(str(part) for part in error.path[1:])
    where = f"{path}: " if path else ""
    definition: dict[str, Any] = error.definition
    if error.rule == "required":
        missing = [key for key in error.rule_definition if key not in error.value]
        return f"{where}{missing[0]} is missing: {definition['properties'][missing[0]]['description']}"
    if error.rule == "additionalProperties":
        return _unknown_keys(path, error.value, definition["properties"])
    return f"{where}{_shown(error.value)} is not allowed: {_allowed(definition)}"


def _unknown_keys(path: str, value: dict[str, Any], known: dict[str, Any]) -> str:
    sentences = []
    for key in sorted(set(value) - set(known)):
        near = difflib.get_close_matches(key, known, n=1)
        meant = f"did you mean {near[0]}?" if near else f"known keys are {', '.join(sorted(known))}"
        sentences.append(f"unknown key {f'{path}.' if path else ''}{key}: {meant}")
    return "; ".join(sentences)


def _allowed(definition: dict[str, Any]) -> str:
    if "enum" in definition:
        return f"one of {', '.join(definition['enum'])}"
    kind = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "array": "a list"}
    said = kind.get(definition["type"], f"a {definition['type']}" if definition["type"] == "string" else "an object")
    if "exclusiveMinimum" in definition:
        said += f" above {definition['exclusiveMinimum']}"
        said += f" and at most {definition['maximum']}" if "maximum" in definition else ""
    elif "minimum" in definition:
        upper = f"to {definition['maximum']}" if "maximum" in definition else "or more"
        said += f" of {definition['minimum']} {upper}"
    if "minItems" in definition:
        said += f" of {definition['minItems']} to {definition['maxItems']} different items"
    description = definition.get("description", "")
    if "pattern" in definition:
        said += f" of the form {definition['pattern']}"
    return f"must be {said}. {description}".strip()


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if not _is_nan(value) else str(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
