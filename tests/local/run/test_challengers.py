"""Challenger against champion: who serves afterwards."""

import dataclasses

import pytest

IMAGES = 200


@pytest.fixture(scope="module")
def champion(stack):
    """An endpoint of its own with a champion that makes 20 mistakes."""
    stack = dataclasses.replace(stack, endpoint_name=f"{stack.name}-challenged")
    ended = stack.run(stack.dataset(mistakes=20, images=IMAGES))
    assert ended["status"] == "SUCCEEDED", f"{ended.get('error')}: {ended.get('cause')}"
    return stack


# Worse by ten, by one, equal, better; each is compared with the champion that the one before it left.
@pytest.mark.parametrize(("mistakes", "accepted"), [(30, False), (21, True), (20, True), (10, True)])
def test_a_challenger_serves_unless_it_is_worse_beyond_doubt(champion, mistakes, accepted):
    before = champion.endpoint()["EndpointConfigName"]
    execution = champion.start(champion.dataset(mistakes=mistakes, images=IMAGES))
    ended = champion.end_of(execution)
    if accepted:
        champion.assert_deployed(execution)
    else:
        champion.assert_rejected(execution, before)
        assert "the champion alone on 10" in ended["cause"]
