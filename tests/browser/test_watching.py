"""The watch on pages sees what it is there to see."""

import pytest

GOOD = "<!doctype html><html lang=en><meta name=viewport content='width=device-width'><title>t</title><main><h1>t</h1>"


@pytest.fixture
def served(serve, tmp_path):
    """Return the address at which a text is served as a page."""
    address = serve(tmp_path)

    def served(text):
        (tmp_path / "page.html").write_text(text)
        (tmp_path / "favicon.ico").write_bytes(b"")
        return f"{address}/page.html"

    return served


@pytest.mark.parametrize("dark", [False, True])
def test_a_good_page_has_no_faults(open_page, faults, width_beyond, served, dark):
    page = open_page(served(GOOD + "<p>a plain page"), dark=dark, width_px=380)
    assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") is dark
    assert (faults(page), width_beyond(page)) == ([], 0)


def test_faults_of_a_page_are_found(open_page, faults, width_beyond, served):
    page = open_page(
        served(GOOD + "<p style='color: #999; background: #aaa; width: 2000px'>unreadable<img src=/page.html>")
    )
    found = faults(page)
    assert any(fault.startswith("color-contrast") for fault in found)
    assert any(fault.startswith("image-alt") for fault in found)
    assert width_beyond(page) > 700
