import pytest

from localcloud.sagemaker.target_tracking import Rule, wanted_instances

QUIET, BUSY = [0.0] * 15, [0.0] * 12 + [250.0, 250.0, 250.0]
FREE = {"least": 1, "most": 6, "target_value": 100.0, "may_grow": True, "may_shrink": True}


@pytest.mark.parametrize(
    ("instances", "minutes", "limits", "wanted"),
    [
        (2, BUSY, {}, 5),
        (2, BUSY, {"most": 3}, 3),
        (2, BUSY, {"may_grow": False}, 2),
        (2, [0.0] * 13 + [250.0, 250.0], {}, 2),
        (2, [100.0] * 15, {}, 2),
        (4, [95.0] * 15, {}, 4),
        (4, [50.0] * 15, {}, 2),
        (4, QUIET, {}, 1),
        (4, QUIET, {"least": 2}, 2),
        (4, QUIET, {"may_shrink": False}, 4),
        (4, [95.0, *QUIET[1:]], {}, 4),
        (1, QUIET, {"least": 3}, 3),
        (9, BUSY, {"may_shrink": False}, 6),
    ],
    ids=[
        "three minutes above grow it in proportion",
        "to the most",
        "not in the cooldown",
        "two minutes are not enough",
        "at the target it stays",
        "a little below, too",
        "fifteen quiet minutes shrink it",
        "to the least",
        "whatever that is",
        "unless it may not",
        "one busy minute keeps it",
        "below the least it grows at once",
        "above the most it shrinks at once",
    ],
)
def test_the_load_says_how_many_there_are(instances, minutes, limits, wanted):
    assert wanted_instances(instances, minutes, Rule(**{**FREE, **limits})) == wanted
