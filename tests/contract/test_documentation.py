"""What the pages name exists."""

import re

from tests.documentation import PAGES, ROOT

PATH = re.compile(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|md|json|yaml|toml|txt|html|js|sh))`")
OF_RUNS = ("code", "inbox", "report", "sweep")
"""Folders in buckets and artifacts."""


def test_every_file_that_a_page_names_exists():
    named = {(page.name, path) for page in PAGES for path in PATH.findall(page.read_text())}
    ours = [(page, path) for page, path in named if path.partition("/")[0] not in OF_RUNS]
    assert len(ours) > 20
    assert [(page, path) for page, path in ours if not (ROOT / path).exists()] == []
