"""Both ends of the inbox: what drops images into it and the function that answers."""

from kelpie.ui import actions
from tests.contract.conftest import load_function_module


def test_the_page_takes_what_the_inbox_takes():
    assert actions.MOST_BYTES == load_function_module("classify_image", "app").LARGEST_OBJECT_BYTES


def test_an_endpoint_that_is_away_for_an_hour_rings_though_no_message_gets_that_old(resources):
    """A message that is held back is sent anew, and its age begins with it."""
    age, held = (resources[name]["Properties"] for name in ("InboxAgeAlarm", "InboxHeldAlarm"))
    assert age["Threshold"] > load_function_module("classify_image", "messages").LONGEST_DELAY_SECONDS
    assert (held["MetricName"], held["Threshold"]) == ("ApproximateNumberOfMessagesDelayed", 1)
    assert held["Period"] * held["EvaluationPeriods"] == 3600
