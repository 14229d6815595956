"""Every test, each in the environment it belongs to: `make test`.

The tests of the job code run in the environments that stand for the container images, with pytest in a layer on top.
The last line says how many passed, failed and were skipped in all; the exit code is 0 only if none failed.
"""

import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree
from dataclasses import dataclass
from pathlib import Path

from localcloud.containers.environments import Environments

ROOT = Path(__file__).parents[1]
TRAINING = "tests/unit/training_code"
SERVING = "tests/unit/inference_code"


@dataclass(frozen=True)
class Part:
    name: str
    python: Path
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    passed: int
    failed: int
    skipped: int


def main() -> int:
    outcomes = []
    for part in parts():
        print(f"\n== {part.name}", flush=True)
        started = time.monotonic()
        outcomes.append(run(part))
        print(f"== {part.name}: {time.monotonic() - started:.0f} s", flush=True)
    passed, failed, skipped = (sum(getattr(o, name) for o in outcomes) for name in ("passed", "failed", "skipped"))
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


def parts() -> list[Part]:
    here = Path(sys.executable)
    return [
        Part(
            "unit and contract", here, ("tests/unit", "tests/contract", f"--ignore={TRAINING}", f"--ignore={SERVING}")
        ),
        Part("training code", _environment("pytorch", TRAINING), (TRAINING,)),
        Part("inference code", _environment("ray", SERVING), (SERVING,)),
        Part("pages in a browser", here, ("tests/browser",)),
        Part("local cloud", here, ("tests/local",)),
        Part("conformance", here, ("tests/conformance",)),
    ]


def run(part: Part) -> Outcome:
    """Run one part. A run that ends badly without a failed test, such as one with a forbidden skip, counts as one."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [str(part.python), "-m", "pytest", *part.arguments, f"--junitxml={report}", "--durations=5"]
        exit_code = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode
        counts = _counts(report)
    tests, failed, skipped = counts["tests"], counts["failures"] + counts["errors"], counts["skipped"]
    return Outcome(tests - failed - skipped, max(failed, 1) if exit_code else failed, skipped)


def _environment(image: str, tests: str) -> Path:
    return Environments().with_requirements(image, ROOT / tests / "requirements.txt", print).python


def _counts(report: Path) -> dict[str, int]:
    names = ("tests", "failures", "errors", "skipped")
    if not report.exists():
        return dict.fromkeys(names, 0)
    suites = list(xml.etree.ElementTree.parse(report).getroot().iter("testsuite"))
    return {name: sum(int(suite.get(name, 0)) for suite in suites) for name in names}


if __name__ == "__main__":
    sys.exit(main())
