"""The guard around the repairs: another MiniStack than the known one is refused before anything is replaced."""

import json
from pathlib import Path

import pytest

from localcloud.ministack.repairs import VERSION, Repair, UnknownMiniStack, repair_all

ROOT = Path(__file__).parents[2]


def test_the_known_version_is_the_pinned_one():
    assert f"ministack=={VERSION}" in (ROOT / "requirements.txt").read_text().split()


def test_a_changed_function_is_refused_by_name_and_nothing_is_replaced():
    before = json.loads
    known = Repair("none", "json", "loads", "", lambda _original: pytest.fail)
    repairs = [
        Repair("fits", "json", "loads", known.found_digest(), lambda _original: pytest.fail),
        Repair("has changed", "json", "dumps", "000000000000", lambda _original: pytest.fail),
        Repair("is gone", "json", "no_such_function", "000000000000", lambda _original: pytest.fail),
    ]
    with pytest.raises(UnknownMiniStack, match=r"json.dumps \(has changed\), json.no_such_function \(is gone\)"):
        repair_all(repairs)
    assert json.loads is before
