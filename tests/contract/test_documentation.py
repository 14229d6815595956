"""What the pages say exists, and what they tell a reader to run is run."""

import re
import subprocess

from tests.documentation import PAGES, ROOT, fences

RUN = ("Try it", "Your own folder")
"""Sections of README.md whose commands tests/local/kelpie runs as they stand, but for two."""

OTHERS = {
    ".venv/bin/kelpie run photos": "takes weights from torchvision's hub; the run from scratch below it is run",
    "make install": "CI runs it: `make test` and `make demo` depend on it",
    ".venv/bin/kelpie ui": "serves until it is stopped: tests/browser/ui serve it",
    "sam build": "tests/local/kelpie/test_sam.py, for this machine's Python and processor",
    "sam deploy --guided": "asks; test_sam.py deploys with options instead",
    "make .venv/.installed": "CI runs it: every other environment depends on it",
    "source .venv/bin/activate": "changes the reader's shell and nothing else",
    "kelpie run photos --stack kelpie": "as above",
    "kelpie classify photo.jpg --stack kelpie": "tests/local/kelpie/test_readme.py",
    "aws s3 sync photos s3://BUCKET/datasets/photos/": "tests/local/kelpie/test_readme.py, with the stack's bucket",
    "aws stepfunctions start-execution --state-machine-arn STATE_MACHINE_ARN "
    """--input '{"dataset": "s3://BUCKET/datasets/photos/"}'""": "the same, and stops it",
    "aws s3 cp photo.jpg s3://BUCKET/inbox/": "the same",
    "aws sagemaker delete-endpoint --endpoint-name kelpie": "tests/cloud ends with the same call",
    "sam delete --stack-name kelpie": "asks; test_sam.py deletes with --no-prompts",
    "kelpie debug s3://BUCKET/runs/RUN/checkpoints/JOB/ [--stack NAME] [--json]": "tests/local/kelpie/test_run.py",
    "kelpie debug out/ --parameter Overfit.patience=3 --parameter DeadRelu.threshold_layer=20": (
        "the same, once the tensors are fetched; test_rules.py gives parameters"
    ),
    "sam deploy --parameter-overrides SubnetIds=subnet-0123,subnet-4567 "
    "SecurityGroupIds=sg-0123 NetworkIsolation=true": "needs a VPC; test_life_of_the_stack.py deploys with the same",
    "make wheels BUCKET=the-stack's-bucket": "downloads what jobs install; tests/unit/kelpie/test_wheels.py",
    "kelpie run photos --stack kelpie --set model.weights=resnet50.safetensors": "tests/local/kelpie/test_weights.py",
    "make check": "CI runs it",
    "make test": "CI runs it",
    "make format": "rewrites the checkout; `make check` runs the same programs",
    "make audit": "asks for advisories in the network",
    "make images": "rewrites the template; `make check` runs it with --check",
}
"""Every other command, and which test runs something like it, or why none does."""

PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|md|json|yaml|toml|txt|html|js|sh))`")
OF_RUNS = ("code", "inbox", "report", "sweep")
"""Folders in buckets and artifacts."""


def test_a_fence_says_what_is_in_it():
    assert [fence for fence in fences() if not fence.language] == []


def test_no_command_is_neither_run_nor_excused():
    shell = [fence for fence in fences() if fence.language == "sh"]
    run = {line for fence in shell for line in fence.lines if fence.page == "README.md" and fence.section in RUN}
    told = {line for fence in shell for line in fence.lines}
    assert OTHERS.keys() <= told
    assert told - run <= OTHERS.keys()


def test_every_target_of_make_exists():
    targets = {line.split()[1] for fence in fences() for line in fence.lines if line.startswith("make ")}
    assert "wheels" in targets
    done = subprocess.run(
        ["make", "--dry-run", *sorted(targets), "BUCKET=bucket"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_file_that_a_page_names_exists():
    named = {(page.name, path) for page in PAGES for path in PATH.findall(page.read_text())}
    ours = [(page, path) for page, path in named if path.partition("/")[0] not in OF_RUNS]
    assert len(ours) > 20
    assert [(page, path) for page, path in ours if not (ROOT / path).exists()] == []
