"""docs/local-cloud-fields.md says what the local SageMaker's own tables say."""

import re
from pathlib import Path

import pytest

from localcloud.sagemaker.fields import TABLES, page, rows
from localcloud.sagemaker.validation import operation

ROOT = Path(__file__).parents[2]
SERVICE = ROOT / "localcloud" / "sagemaker"


def test_the_page_is_fresh():
    written = (ROOT / "docs" / "local-cloud-fields.md").read_text()
    assert written == page(), "write it again: python -m localcloud.sagemaker.fields > docs/local-cloud-fields.md"


def test_every_table_is_on_the_page():
    source = "\n".join(path.read_text() for path in sorted(SERVICE.glob("*.py")))
    assert set(re.findall(r'refuse_unsupported\("(\w+)"', source)) == TABLES.keys()


@pytest.mark.parametrize("action", sorted(TABLES))
def test_a_table_names_fields_that_there_are(action):
    support = TABLES[action]
    told = {path for path, kind, _ in rows(operation(action).input_shape, "", support) if kind != "refused"}
    assert {*support.honoured, *support.only, *support.ignored} - told == set()
