"""What holds for all tests: none is skipped unless tests/allowed_skips.txt lists it with a reason, and none but those
that are asked for on an account of AWS sees whose machine it is.
"""

import fnmatch
import os
from pathlib import Path

import pytest

ALLOWED_SKIPS = Path(__file__).with_name("allowed_skips.txt")
OF_THE_USER = ("AWS_", "KELPIE_", "SM_")


class SkipGuard:
    """Collects what is skipped, and fails a run that would otherwise pass."""

    def __init__(self, patterns):
        self._patterns = patterns
        self._unlisted = []

    def pytest_runtest_logreport(self, report):
        self._note(report)

    def pytest_collectreport(self, report):
        self._note(report)

    def pytest_sessionfinish(self, session):
        if self._unlisted and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter):
        for line in self._unlisted:
            terminalreporter.write_line(f"SKIPPED, and not in {ALLOWED_SKIPS.name}: {line}", red=True)

    def _note(self, report):
        listed = any(fnmatch.fnmatchcase(report.nodeid, pattern) for pattern in self._patterns)
        if report.skipped and not hasattr(report, "wasxfail") and not listed:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            self._unlisted.append(f"{report.nodeid}: {reason}")


def pytest_addoption(parser):
    group = parser.getgroup("conformance", "tests/conformance on an account of AWS, which costs money")
    group.addoption("--aws", action="store_true", help="run there instead of on a local cloud")
    for option in ("bucket", "role", "training-image", "serving-image"):
        group.addoption(f"--aws-{option}")
    parser.getgroup("cloud", "tests/cloud").addoption("--stack", help="the deployed stack that tests/cloud drives")


def pytest_configure(config):
    if not config.getoption("--aws") and not config.getoption("--stack"):
        for name in [name for name in os.environ if name.startswith(OF_THE_USER)]:
            del os.environ[name]
    lines = [line for line in ALLOWED_SKIPS.read_text().splitlines() if line and not line.startswith("#")]
    if without_reason := [line for line in lines if len(line.split(maxsplit=1)) < 2]:
        raise pytest.UsageError(f"{ALLOWED_SKIPS.name}: no reason given for {', '.join(without_reason)}")
    config.pluginmanager.register(SkipGuard([line.split()[0] for line in lines]))
