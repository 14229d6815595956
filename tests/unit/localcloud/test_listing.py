"""Filters, order and pages of the List actions."""

from datetime import UTC, datetime

import pytest

from localcloud.sagemaker.errors import ServiceError
from localcloud.sagemaker.listing import list_page

RECORDS = [
    {"Name": name, "Status": status, "CreationTime": datetime(2026, 1, day, tzinfo=UTC)}
    for name, status, day in (("b", "Failed", 1), ("a", "Completed", 2), ("ab", "Failed", 3))
]


def names(**parameters):
    return [r["Name"] for r in page(**parameters)["Things"]]


def page(**parameters):
    return list_page(parameters, RECORDS, result="Things", name="Name", status="Status")


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, ["b", "a", "ab"]),
        ({"SortOrder": "Descending"}, ["ab", "a", "b"]),
        ({"SortBy": "Name"}, ["a", "ab", "b"]),
        ({"SortBy": "Status"}, ["a", "ab", "b"]),
        ({"NameContains": "B"}, ["b", "ab"]),
        ({"StatusEquals": "Failed"}, ["b", "ab"]),
        ({"CreationTimeAfter": datetime(2026, 1, 1, tzinfo=UTC)}, ["a", "ab"]),
        ({"CreationTimeBefore": datetime(2026, 1, 2, tzinfo=UTC)}, ["b"]),
    ],
)
def test_records_are_filtered_and_sorted(parameters, expected):
    assert names(**parameters) == expected


def test_pages_follow_each_other():
    first = page(MaxResults=2)
    assert [r["Name"] for r in first["Things"]] == ["b", "a"]
    assert page(MaxResults=2, NextToken=first["NextToken"]) == {"Things": [RECORDS[2]], "NextToken": None}


def test_a_foreign_token_is_refused():
    with pytest.raises(ServiceError, match="NextToken 'x' is not one that this service gave"):
        page(NextToken="x")
