"""The files that the contracts are between, read once: the template, the state machine, the functions."""

import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LONGEST_PREFIX = "k" + "9" * 9
"""NamePrefix as long as the template allows."""

SUBSTITUTIONS = {
    "Partition": "aws",
    "NamePrefix": LONGEST_PREFIX,
    "ModelPackageGroupName": f"{LONGEST_PREFIX}-0123456789ab",
    "EndpointDeadlineSeconds": "3600",
}

ACCOUNT = {
    "job_role": "arn:aws:iam::123456789012:role/jobs",
    "evaluation_role": "arn:aws:iam::123456789012:role/evaluation",
    "serving_role": "arn:aws:iam::123456789012:role/serving",
    "volume_size_gb": 50,
    "debugger_rules_image": "",
    "subnets": (),
    "security_groups": (),
    "isolated": False,
    "key_arn": "",
    "tags": {"application": "kelpie"},
}


@pytest.fixture(scope="session")
def template() -> dict[str, Any]:
    return yaml.load((ROOT / "template.yaml").read_text(), Loader=_CloudFormationLoader)


@pytest.fixture(scope="session")
def resources(template) -> dict[str, dict[str, Any]]:
    return template["Resources"]


@pytest.fixture(scope="session")
def asl_text() -> str:
    return (ROOT / "statemachine" / "train_and_deploy.asl.json").read_text()


@pytest.fixture(scope="session")
def definition(asl_text) -> dict[str, Any]:
    """The state machine with every substitution made; functions are called by their logical names."""
    filled = re.sub(r"\$\{(\w+)Arn\}", lambda found: SUBSTITUTIONS.get(f"{found[1]}Arn", found[1]), asl_text)
    return json.loads(re.sub(r"\$\{(\w+)\}", lambda found: SUBSTITUTIONS[found[1]], filled))


@pytest.fixture(scope="session")
def plan_module() -> ModuleType:
    return load_function_module("plan_run", "plan")


@pytest.fixture(scope="session")
def run_input_module() -> ModuleType:
    return load_function_module("plan_run", "run_input")


@pytest.fixture(scope="session")
def make_plan(plan_module, run_input_module):
    """PlanRun's own plan for an execution input, under the longest names. account: what the stack says otherwise."""

    def make(account: dict[str, Any] | None = None, **given: Any) -> dict[str, Any]:
        bucket = f"{LONGEST_PREFIX}-123456789012-ap-southeast-1-0123456789ab"
        instances = dict.fromkeys(("prepare", "tune", "train", "evaluate"), "ml.m5.xlarge") | {
            "endpoint": "ml.m5.large"
        }
        run_input = run_input_module.complete(
            {"dataset": f"s3://{bucket}/datasets/dogs", **given},
            LONGEST_PREFIX,
            instances,
            {"max_instance_count": 0, "invocations_per_instance": 600},
        )
        settings = plan_module.job_requests.Account(**ACCOUNT | (account or {}))
        stack = plan_module.Stack(bucket, "ap-southeast-1", LONGEST_PREFIX, 90, settings)
        images = {step: f"1.dkr.ecr/{step}:1" for step in run_input["instances"]}
        split = {"images": 128, "images_by_class": {"affenpinscher": 64, "afghan": 64}}
        dataset = {
            "uri": run_input["dataset"],
            "listing_digest": "0" * 64,
            "bytes": 1,
            "classes": ["affenpinscher", "afghan"],
            "splits": {"train": split, "valid": split, "test": split},
        }
        found = plan_module.Found(images, dataset, "1" * 64, "2" * 64, None, None)
        arn = f"arn:aws:states:ap-southeast-1:123456789012:execution:{LONGEST_PREFIX}-train-and-deploy:{'e' * 80}"
        return plan_module.make(run_input, arn, "2026-11-22T12:00:00Z", stack, found)

    return make


def load_function_module(function: str, module: str) -> ModuleType:
    """Import a module of a function as Lambda does, with the function's folder first on the path."""
    folder = ROOT / "functions" / function
    names = [path.stem for path in folder.glob("*.py")]
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(str(folder))
        for name in names:
            sys.modules.pop(name, None)


class _CloudFormationLoader(yaml.SafeLoader):
    """Reads !Ref and its like as CloudFormation's long forms."""


def _intrinsic(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_CloudFormationLoader.add_multi_constructor("!", _intrinsic)


@pytest.fixture(scope="session")
def interpreter() -> ModuleType:
    return _beside_tests("interpreter")


def _beside_tests(name: str) -> ModuleType:
    sys.path.insert(0, str(Path(__file__).parent))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)
