"""Who may import whom: the five rules of the design, read from the source."""

import ast
import re
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAMBDA_HAS = {"boto3", "botocore"}
HEAVY = {"torch", "torchvision", "smdebug", "ray", "numpy", "pandas", "sagemaker", "localcloud", "kelpie"}
PACKAGE_OF = {"aws_lambda_powertools": "aws-lambda-powertools", "PIL": "pillow", "vl_convert": "vl-convert-python"}
BACKEND_IN_THE_CONTAINER = '"RAYSERVE_BACKEND_URL": "http://127.0.0.1:8001"'
"""Where the adapter in AWS's Ray image finds our server, which is in the same container."""
BEFORE_AN_IMPORT = {"training_code/carried_smdebug.py": {"provide"}}
"""What a library that is imported next needs to find."""
KNOW_EACH_OTHER = {("training_run", "training_jobs"), ("tuning_run", "tuning_jobs")}
"""A run and the jobs that it is one of."""
FUNCTIONS = sorted(path.parent for path in (ROOT / "functions").glob("*/app.py"))
CALLS_THAT_BUILD_NOTHING = (
    # What a module may call while it is imported: values, classes and registrations, all of them without a trace.
    r"(re\.compile|frozenset|tuple|dict|list|set|range|field|dataclasses\.field|Path|int|float|str|len|sorted|sum|max|min"
    r"|math\.\w+|TypeVar|ContextVar|contextvars\.ContextVar|logging\.getLogger|Path\(__file__\)\.\w+|.*\.(strip|split|items|keys|"
    r"format|join|encode|parent|resolve|with_name|joinpath|removesuffix))"
)


def modules_of(folder):
    """The Python files of a folder, without those that a link brings."""
    return [
        path
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "__pycache__" not in path.parts and path.resolve() == path.absolute()
    ]


def imported_by(path):
    """Top-level names of the modules that a file imports, relative ones left out, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("folder", FUNCTIONS, ids=lambda folder: folder.name)
def test_a_function_imports_what_it_carries_and_nothing_else(folder):
    own = {path.stem for path in folder.glob("*.py")}
    required = {line.split("==")[0] for line in (folder / "requirements.txt").read_text().splitlines()}
    for path in folder.glob("*.py"):
        for name in imported_by(path) - own - LAMBDA_HAS - sys.stdlib_module_names:
            assert PACKAGE_OF.get(name, name) in required, f"{path} imports {name}"
            assert name not in HEAVY


def test_functions_share_nothing_but_the_modules_above_them():
    linked = {path.name for folder in FUNCTIONS for path in folder.glob("*.py") if path.is_symlink()}
    assert linked == {"documents.py", "endpoints.py", "invocation.py", "layout.py", "saved_collections.py"}


@pytest.mark.parametrize("folder", FUNCTIONS, ids=lambda folder: folder.name)
def test_a_function_imports_each_module_that_it_links(folder):
    linked = {path.stem for path in folder.glob("*.py") if path.is_symlink()}
    assert linked <= set().union(*(imported_by(path) for path in folder.glob("*.py")))


def test_no_function_makes_a_client_of_its_own():
    for path in modules_of("functions"):
        assert path.name == "invocation.py" or "boto3" not in imported_by(path), path


def test_training_code_knows_nothing_of_aws_and_inference_code_nothing_of_training():
    training = {path.stem for path in modules_of("training_code")}
    for path in modules_of("training_code"):
        assert not imported_by(path) & {"boto3", "botocore", "sagemaker", "localcloud", "kelpie", "training_code"}, path
    for path in modules_of("inference_code"):
        own = {other.stem for other in modules_of("inference_code")}
        strangers = {"boto3", "botocore", "sagemaker", "localcloud", "kelpie", "training_code"}
        assert not imported_by(path) & (strangers | (training - own)), path


def test_the_local_cloud_imports_no_product_module_and_holds_no_product_name():
    for path in modules_of("localcloud"):
        assert not imported_by(path) & {"kelpie", "functions", "training_code", "inference_code"}, path
        assert not re.search("kelpie", path.read_text(), re.IGNORECASE), path


def test_the_local_sagemaker_knows_nothing_of_ministack():
    files = modules_of("localcloud/sagemaker")
    assert files
    for path in files:
        assert "ministack" not in imported_by(path), path
        assert "localcloud.ministack" not in path.read_text(), path


def test_the_parts_of_the_local_sagemaker_go_round_in_no_circle():
    """Imports for types alone count: each part is given what it uses, and not the service that holds them all."""
    written = {path.stem: path.read_text() for path in modules_of("localcloud/sagemaker")}
    needed = {
        part: set(re.findall(r"from localcloud\.sagemaker\.(\w+) import", text))
        | set(re.findall(r"from localcloud\.sagemaker import (\w+)", text))
        for part, text in written.items()
    }
    for part, other in KNOW_EACH_OTHER:
        needed[part].remove(other)
    TopologicalSorter(needed).prepare()  # raises CycleError


def test_nothing_but_the_command_and_tests_imports_the_local_cloud():
    for path in ROOT.rglob("*.py"):
        place = path.relative_to(ROOT).parts[0]
        if place not in ("kelpie", "localcloud", "tests", "benchmarks") and not place.startswith((".", "build")):
            assert "localcloud" not in imported_by(path), path


@pytest.mark.parametrize("folder", ["functions", "training_code", "inference_code"])
def test_no_module_works_while_it_is_imported(folder):
    for path in modules_of(folder):
        name = str(path.relative_to(ROOT))
        for statement in ast.parse(path.read_text()).body:
            for call in set(_calls_outside_functions(statement)) - BEFORE_AN_IMPORT.get(name, set()):
                assert re.fullmatch(CALLS_THAT_BUILD_NOTHING, call), f"{name}: {call}"


@pytest.mark.parametrize("folder", ["functions", "training_code", "inference_code", "statemachine", "template.yaml"])
def test_the_product_cannot_tell_where_it_runs(folder):
    files = [ROOT / folder] if (ROOT / folder).is_file() else [p for p in (ROOT / folder).rglob("*") if p.is_file()]
    for path in files:
        if path.suffix in (".py", ".json", ".yaml", ".txt"):
            text = path.read_text().replace(BACKEND_IN_THE_CONTAINER, "")
            assert not re.search(r"localcloud|ministack|localhost|127\.0\.0\.1|AWS_ENDPOINT_URL|IS_LOCAL", text), path


def _calls_outside_functions(statement):
    """The calls that run on import: not those in functions, and not in a script's own __main__ block."""
    if isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test):
        return
    waiting = [statement]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)
        if isinstance(node, ast.ClassDef):
            waiting += node.body  # decorators and bases of a class are declarations
            continue
        waiting += ast.iter_child_nodes(node)
