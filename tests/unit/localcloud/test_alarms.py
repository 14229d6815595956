"""The states of alarms, by AWS's own table of missing data."""

import pytest

from localcloud.ministack.alarms import next_state

TABLE = [  # newest first: breaching, not breaching or missing; then missing, ignore, breaching, notBreaching
    ("X-X", 3, "ALARM", None, "ALARM", "OK"),
    ("0--", 3, "OK", "OK", "OK", "OK"),
    ("---", 3, "INSUFFICIENT_DATA", None, "ALARM", "OK"),
    ("XXX", 3, "ALARM", "ALARM", "ALARM", "ALARM"),
    ("--X", 3, "ALARM", None, "ALARM", "OK"),
    ("X0X", 2, "ALARM", "ALARM", "ALARM", "ALARM"),
    ("X00", 2, "OK", "OK", "OK", "OK"),
    ("0", 1, "OK", "OK", "OK", "OK"),
    ("X", 1, "ALARM", "ALARM", "ALARM", "ALARM"),
]


@pytest.mark.parametrize(("periods", "needed", "missing", "ignore", "breaching", "not_breaching"), TABLE)
def test_states(periods, needed, missing, ignore, breaching, not_breaching):
    seen = [{"X": True, "0": False, "-": None}[period] for period in periods]
    states = {"missing": missing, "ignore": ignore, "breaching": breaching, "notBreaching": not_breaching}
    assert {how: next_state(seen, needed, how) for how in states} == states
