"""Both ends of the inbox: what drops images into it and the function that answers."""

from kelpie.ui import actions
from tests.contract.conftest import load_function_module


def test_the_page_takes_what_the_inbox_takes():
    assert actions.MOST_BYTES == load_function_module("classify_image", "app").LARGEST_OBJECT_BYTES
