"""Nothing but the page itself, opened by whoever started the server, may drive it."""

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from kelpie.ui.guard import Guard, Keys

PORT = 8765
KEYS = Keys()
HERE = f"http://127.0.0.1:{PORT}"


def answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{request.method} done")


@pytest.fixture
def stranger(client_of):
    """A client that has never seen the printed address."""
    served = Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])
    return client_of(Guard(served, PORT, KEYS), {"host": f"127.0.0.1:{PORT}"})


@pytest.fixture
def client(stranger, client_of):
    """A client with the cookie of the printed address."""
    cookie = stranger.get(f"/?key={KEYS.entry}").headers["set-cookie"].partition(";")[0]
    return client_of(stranger.application, {**stranger.always, "cookie": cookie})


ACTION = {"origin": HERE, "x-kelpie-action": KEYS.action}


def test_the_printed_address_lets_in_and_leaves_no_key_in_the_address(stranger):
    entered = stranger.get(f"/?key={KEYS.entry}")
    assert (entered.status, entered.headers["location"]) == (303, "/")
    assert {"httponly", "samesite=lax"} <= set(entered.headers["set-cookie"].lower().split("; "))


@pytest.mark.parametrize("address", ["/", "/?key=", "/?key=wrong", "/runs/one?key=" + KEYS.entry, "/static/page.css"])
def test_without_the_key_nothing_is_shown(stranger, address):
    assert stranger.get(address).status == 403


def test_with_the_cookie_pages_are_shown(client):
    assert client.get("/").text == "GET done"


def test_the_page_itself_may_read_and_act(client):
    fetched = {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}
    assert client.get("/parts", headers=fetched).text == "GET done"
    assert client.post("/runs", headers={**ACTION, **fetched}).text == "POST done"


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:1", f"127.1:{PORT}", "", None]
)
def test_a_name_that_was_bound_anew_to_this_machine_gets_nothing(client, host):
    for method in ("GET", "POST"):
        assert client.request(method, "/", headers={**ACTION, "host": host}).status == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"x-kelpie-action": KEYS.action},
        {**ACTION, "origin": "null"},
        {**ACTION, "origin": "http://evil.example"},
        {**ACTION, "origin": "http://127.0.0.1:3000"},
        {**ACTION, "origin": f"https://127.0.0.1:{PORT}"},
        {**ACTION, "sec-fetch-site": "same-site"},
        {**ACTION, "sec-fetch-site": "cross-site"},
        {"origin": HERE},
        {"origin": HERE, "x-kelpie-action": KEYS.entry},
        {"origin": HERE, "x-kelpie-action": "ä".encode()},
    ],
)
def test_another_page_cannot_act_even_with_the_cookie(client, headers):
    assert client.post("/runs", headers=headers).status == 403


@pytest.mark.parametrize("site", ["same-site", "cross-site"])
@pytest.mark.parametrize(
    ("mode", "dest"), [("no-cors", "image"), ("no-cors", "script"), ("cors", "empty"), ("navigate", "iframe")]
)
def test_another_page_can_embed_or_fetch_nothing(client, site, mode, dest):
    headers = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": dest}
    assert client.get("/runs/one", headers=headers).status == 403


def test_a_link_may_lead_to_the_page(client):
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert client.get("/runs/one", headers=headers).text == "GET done"


def test_every_answer_tells_the_browser_to_trust_nothing_else(client, stranger):
    for response in (client.get("/"), stranger.get("/", headers={"host": "evil.example"})):
        policy = response.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in response.headers


def test_keys_are_new_with_each_server():
    assert len({Keys().entry, Keys().entry, Keys().action, KEYS.entry, KEYS.action}) == 5
