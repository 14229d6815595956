"""Write docs/tree.md from the files themselves: a module's line is its docstring's first sentence.

Run by `make format`; `make check` runs it with --check, which writes nothing and fails if the page differs.
"""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tree.md"

# Files that cannot speak for themselves, and folders that one line is enough for.
LINES = {
    ".ci/run": "What CI runs.",
    ".checkov.yaml": "Which of checkov's rules do not apply to the template, and why.",
    "CHANGELOG.md": "What changed, by version.",
    "CONTRIBUTING.md": "How to work on it.",
    "LICENSE": "Apache-2.0.",
    "Makefile": "install, demo, test, check, format.",
    "README.md": "What it is, how to try it, and where all else is told.",
    "SECURITY.md": "The threat model, and how to report a weakness.",
    "contracts/examples/": "One example of each document, held against its schema.",
    "docs/decisions/": "Decisions that are costly to reverse, a page each.",
    "docs/command.md": "The command: what each part of it does, settings, exit codes.",
    "docs/data.md": "Data sets: layouts, splits, and what becomes of images that are broken, unusual or alike.",
    "docs/debugger.md": "The debugger: its rules, which fault fires which, and how findings steer a run.",
    "docs/deploy.md": "The deploy: what it promises, and what becomes of each fault.",
    "docs/network.md": "Jobs and endpoint in a VPC, and without any network.",
    "docs/serving.md": "Where an answer's milliseconds go, and what each variant of a model costs.",
    "docs/dependencies.md": "Why each dependency is there.",
    "docs/experiments.md": "What was tried on photographs, with its figures, and what did not help.",
    "docs/images/": "The pictures of README.md, written by `make screenshots`.",
    "docs/local-cloud-fields.md": "The local SageMaker, field by field: honoured, refused, ignored and why.",
    "docs/inbox.md": "The inbox: what comes back for what is dropped, whatever goes wrong.",
    "docs/local-cloud.md": "The local cloud: what it does, what it refuses, what differs from AWS.",
    "docs/permissions.md": "The IAM actions that a user of the command needs.",
    "docs/stack.md": "The stack on AWS: what it creates and costs, quotas, parameters, and how to remove it.",
    "docs/tree.md": "This page, written by `make format`.",
    "functions/plan_run/prices.json": "SageMaker's list prices, of one day and region.",
    "functions/*/requirements.txt": "What each function brings with it.",
    "functions/write_report/templates/": "The pages, their style and the parts that sections share.",
    "inference_code/config.yaml": "What Ray Serve starts.",
    "inference_code/optimize-requirements.txt": "What OptimizeModel installs to build and time variants.",
    "inference_code/requirements-timm.txt": "What the endpoint installs where the network is one of timm's.",
    "inference_code/requirements.txt": "What the endpoint installs beyond its image.",
    "kelpie/ui/static/": "Style and scripts of the pages, served as they are.",
    "kelpie/ui/templates/": "The pages, and the parts of them that are asked for again while they are seen.",
    "localcloud/containers/*/requirements.txt": "What stands for each image's own packages.",
    "pyproject.toml": "The package, and the settings of ruff, mypy and pytest.",
    "requirements-audit.txt": "The pin of the checks of `make audit`.",
    "requirements-pip-audit.txt": "The pin of what holds packages against published advisories in `make audit`.",
    "requirements-demo.txt": "The demo's pins.",
    "requirements-dev.txt": "The tests' and checks' pins.",
    "requirements-sam.txt": "The SAM CLI's pin.",
    "requirements-sdk-v2.txt": "The SageMaker SDK v2, a client of the conformance tests.",
    "requirements-sdk-v3.txt": "The core of the SageMaker SDK v3, another.",
    "requirements.txt": "The command's and the local cloud's pins.",
    "samconfig.toml": "Defaults of `sam build` and `sam deploy`.",
    "statemachine/train_and_deploy.asl.json": "The run, as a state machine in JSONata.",
    "template.yaml": "The only home of resources, roles, environment and tunables.",
    "tests/contract/": "Files against files.",
    "tests/local/": "The whole on the local cloud: its services, the command, the AWS CLI, the SAM CLI.",
    "tests/run_all.py": "Every test, each in the environment it belongs to.",
    "tests/unit/": "Real code on tiny data, without sockets.",
    "training_code/requirements.txt": "What each job installs beyond its image.",
    "training_code/smdebug-*.whl": "SageMaker Debugger's library, which jobs install without what it pins.",
}
LEFT_OUT = (".gitignore", "tests/conftest.py", "tests/allowed_skips.txt")


class Undescribed(Exception):
    """A file has no line: give a module a docstring, and any other file a line in LINES."""


def main() -> int:
    written = f"# The tree\n\nEvery file, with what it is for.\n\n```text\n{tree(tracked())}\n```\n"
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(written)
    elif not PAGE.exists() or PAGE.read_text() != written:
        print("docs/tree.md is not the tree of the files: run `make format`", file=sys.stderr)
        return 1
    return 0


def tracked() -> list[str]:
    """Return the files that git knows, or would know with the next `git add`."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted({name for name in listed if (ROOT / name).is_file() and not (ROOT / name).is_symlink()})


def tree(files: list[str]) -> str:
    """Return one line a file, folder by folder. Raises Undescribed."""
    folders: dict[str, dict[str, str]] = {}
    for file in files:
        if file not in LEFT_OUT and not file.endswith("/__init__.py"):
            name = _name(file)
            folder, slash, own = name.rstrip("/").rpartition("/")
            own += "/" if name.endswith("/") else ""
            folders.setdefault(folder + slash, {})[own] = LINES.get(name) or _own_line(ROOT / name)
    lines = []
    for folder in sorted(folders):
        width = max(map(len, folders[folder]))
        lines += [folder] if folder else []
        indent = "    " if folder else ""
        lines += [f"{indent}{name:<{width}}  {line}" for name, line in sorted(folders[folder].items())]
    return "\n".join(lines)


def _name(file: str) -> str:
    """Return the file, or the folder or pattern of LINES that stands for it."""
    return next((name for name in LINES if Path(file).match(name) or (name[-1] == "/" and file.startswith(name))), file)


def _own_line(path: Path) -> str:
    text = path.read_text()
    if path.suffix == ".py":
        paragraph = (ast.get_docstring(ast.parse(text)) or "").partition("\n\n")[0]
        line = re.split(r"(?<=\.)\s", " ".join(paragraph.split()))[0]
    elif path.name.endswith(".schema.json"):
        line = json.loads(text)["title"]
    else:
        line = ""
    if not line:
        raise Undescribed(str(path))
    return line


if __name__ == "__main__":
    sys.exit(main())
