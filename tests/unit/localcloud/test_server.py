"""When the local cloud saves its state."""

import asyncio
import threading

import pytest

from localcloud.ministack import server


class Traffic:
    def changed(self):
        return True


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(server, "SAVE_SECONDS", 0)


def test_no_save_is_under_way_once_saving_has_ended():
    """It would put an older state in the place of the one that is saved at the end."""
    begun, go_on, saved = threading.Event(), threading.Event(), []

    def save():
        begun.set()
        go_on.wait()
        saved.append("whole")

    async def stopped_while_it_saves():
        stop = asyncio.Event()
        saving = asyncio.create_task(server.save_regularly(Traffic(), stop, save))
        await asyncio.to_thread(begun.wait)
        stop.set()
        done, _ = await asyncio.wait([saving], timeout=0.05)
        assert not done
        go_on.set()
        await saving

    asyncio.run(stopped_while_it_saves())
    assert saved == ["whole"]


def test_nothing_is_saved_after_the_stop():
    async def stopped():
        stop = asyncio.Event()
        stop.set()
        await server.save_regularly(Traffic(), stop, lambda: pytest.fail("saved"))

    asyncio.run(stopped())
