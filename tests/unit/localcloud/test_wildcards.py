"""What a policy's * stands for, in MiniStack's IAM as it is and repaired."""

import pytest
from ministack.core import iam_evaluator

from localcloud.ministack import identities

(REPAIR,) = [repair for repair in identities.REPAIRS if repair.module == iam_evaluator.__name__]
BELOW_THE_INBOX = "arn:aws:s3:::bucket/inbox/*"


@pytest.fixture
def repaired(monkeypatch):
    original = getattr(iam_evaluator, REPAIR.function)
    monkeypatch.setattr(iam_evaluator, REPAIR.function, REPAIR.repaired(original))


@pytest.mark.usefixtures("repaired")
@pytest.mark.parametrize("name", ["a.jpg", "a\nb.jpg", "\n"])
def test_it_stands_for_line_breaks_too(name):
    assert iam_evaluator.fnmatch_iam_cs(f"arn:aws:s3:::bucket/inbox/{name}", BELOW_THE_INBOX)
    assert not iam_evaluator.fnmatch_iam_cs(f"arn:aws:s3:::bucket/{name}", BELOW_THE_INBOX)


def test_upstream_stops_at_a_line_break():
    assert not iam_evaluator.fnmatch_iam_cs("arn:aws:s3:::bucket/inbox/a\nb.jpg", BELOW_THE_INBOX)
