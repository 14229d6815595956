"""Pages in Debian's Chromium, as a person sees them: light or dark, wide or narrow, by eye, keyboard and screen reader.

`open_page(address)` opens a page that is watched until the test's end, when the test fails if the page wrote an error
to the console, threw one, or asked for anything beyond this machine. `faults(page)` are what axe-core finds serious.
"""

import http.server
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.waiting import PATIENCE_SECONDS

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDE_PX, NARROW_PX = 1280, 380
OF_THIS_MACHINE = ("127.0.0.1", "localhost", "[::1]")
SERIOUS = ("serious", "critical")
expect.set_options(timeout=1000 * PATIENCE_SECONDS)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    executable = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if executable is None:
        pytest.skip(f"no Chromium on the PATH: none of {', '.join(CHROMIUM)}")
    # Chromium's sandbox does not start for root, as whom CI runs.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Open an address (http://127.0.0.1:... or file://...) in a profile of its own."""
    contexts, troubles = [], []

    def open_page(address: str, *, dark: bool = False, width_px: int = WIDE_PX) -> Page:
        context = chromium.new_context(
            color_scheme="dark" if dark else "light",
            viewport={"width": width_px, "height": 900},
            has_touch=width_px <= NARROW_PX,
            accept_downloads=False,
        )
        context.set_default_timeout(1000 * PATIENCE_SECONDS)
        contexts.append(context)
        context.route(lambda address: not _is_of_this_machine(address), lambda route: _refuse(route, troubles))
        page = context.new_page()
        page.on("console", lambda said: troubles.append(f"console: {said.text}") if said.type == "error" else None)
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        page.goto(address)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.fixture
def serve() -> Iterator[Callable[[Path], str]]:
    """Serve a folder until the test's end, and return its address."""
    handler = type("Handler", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    servers = []

    def serve(folder: Path) -> str:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=folder))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield serve
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="session")
def faults() -> Callable[[Page], list[str]]:
    """Return what axe-core finds serious or critical on a page: one line a place."""

    def faults(page: Page) -> list[str]:
        found = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        return [
            f"{violation['id']} ({violation['help']}): {node['html'][:200]} {node['failureSummary']}"
            for violation in found
            if violation["impact"] in SERIOUS
            for node in violation["nodes"]
        ]

    return faults


@pytest.fixture(scope="session")
def width_beyond() -> Callable[[Page], int]:
    """Return by how many pixels a page is wider than its window: more than 0 scrolls sideways."""
    script = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    return lambda page: page.evaluate(script)


def _is_of_this_machine(address: str) -> bool:
    parts = urlsplit(address)
    return parts.scheme in ("file", "data", "blob", "about") or (parts.hostname or "") in OF_THIS_MACHINE


def _refuse(route: Route, troubles: list[str]) -> None:
    troubles.append(f"asked for {route.request.url}")
    route.abort()
