"""What the page does, asked as its script asks."""

import pytest

from kelpie.ui import actions
from kelpie.ui.guard import Keys
from kelpie.ui.readings import Readings
from kelpie.ui.server import application

PORT = 8765
KEYS = Keys()
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)


@pytest.fixture
def client(stack, client_of):
    """The page's own script, let in by the printed address."""
    served = application(Readings(stack, None), PORT, KEYS)
    host = {"host": f"127.0.0.1:{PORT}"}
    cookie = client_of(served, host).get(f"/?key={KEYS.entry}").headers["set-cookie"].partition(";")[0]
    sent = {"origin": f"http://127.0.0.1:{PORT}", "x-kelpie-action": KEYS.action, "accept": "application/json"}
    return client_of(served, {**host, **sent, "cookie": cookie})


def test_a_picture_is_dropped_whole_under_its_name_and_by_what_it_holds(client, stack):
    dropped = client.post("/inbox?name=a%20photo.jpg", body=PNG)
    assert dropped.status == 201
    assert dropped.json["key"].endswith("/a photo.jpg")
    stored = stack.client("s3").get_object(Bucket="bucket", Key=dropped.json["key"])
    assert (stored["Body"].read(), stored["ContentType"]) == (PNG, "image/png")


@pytest.mark.parametrize(("spare", "status"), [(0, 201), (-1, 413)])
def test_a_picture_may_have_so_many_bytes_and_no_more(client, monkeypatch, spare, status):
    monkeypatch.setattr(actions, "MOST_BYTES", len(PNG) + spare)
    assert client.post("/inbox?name=a.png", body=PNG).status == status
