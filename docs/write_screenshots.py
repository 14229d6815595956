"""Write docs/images: pages as Chromium shows them, of what `make demo` has left; its cloud is brought up for it.

    python docs/write_screenshots.py [HOME]

HOME: another local cloud's state, with a run that has succeeded; `.kelpie-demo/.kelpie` unless it is given.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import sync_playwright

from kelpie.demo import free_port

COMMAND = (sys.executable, "-m", "kelpie")
IMAGES = Path(__file__).parent / "images"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SIZE_PX = {"width": 1280, "height": 860}
SETTLED_MS = 500


def main() -> int:
    home = Path(sys.argv[1] if len(sys.argv) > 1 else ".kelpie-demo/.kelpie").resolve()
    if not home.is_dir():
        print(f"{home}: there is no such folder; run `make demo` first", file=sys.stderr)
        return 1
    IMAGES.mkdir(exist_ok=True)
    with cloud_of(home) as environment, page_of(environment) as address:
        listed = json.loads(kelpie(environment, "status", "--json"))["executions"]
        succeeded = [one["name"] for one in listed if one["status"] == "SUCCEEDED"]
        host = f"http://{urlsplit(address).netloc}"
        take([address, f"{host}/runs/{succeeded[0]}"], "ui-light.png", dark=False)
        take([address, f"{host}/inbox"], "ui-dark.png", dark=True)
        with tempfile.TemporaryDirectory() as folder:
            fetched = json.loads(kelpie(environment, "report", succeeded[0], "--output", folder, "--json"))
            take([Path(fetched["report"]).as_uri()], "report.png", dark=False)
    return 0


@contextmanager
def cloud_of(home: Path) -> Iterator[dict[str, str]]:
    """Bring the cloud up unless it is, and take it down again if it was not."""
    environment = dict(os.environ) | {"KELPIE_HOME": str(home)}
    was_up = subprocess.run([*COMMAND, "env"], env=environment, capture_output=True, check=False).returncode == 0
    if not was_up:
        kelpie(environment, "up", "--port", str(free_port()))
    try:
        yield environment
    finally:
        if not was_up:
            kelpie(environment, "down")


@contextmanager
def page_of(environment: dict[str, str]) -> Iterator[str]:
    command = [*COMMAND, "ui", "--no-browser"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        found = next(filter(None, (re.search(r"http://\S+", line) for line in process.stderr)))
        try:
            yield found[0]
        finally:
            process.terminate()


def take(addresses: list[str], name: str, dark: bool) -> None:
    """Write a picture of the last of the addresses, which are opened one after the other."""
    executable = next(filter(None, map(shutil.which, CHROMIUM)))
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=arguments)
        page = browser.new_page(viewport=SIZE_PX, color_scheme="dark" if dark else "light")
        for address in addresses:
            page.goto(address)
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(SETTLED_MS)
        page.screenshot(path=IMAGES / name)
        browser.close()
    print(f"{IMAGES / name}: {(IMAGES / name).stat().st_size >> 10} KiB")


def kelpie(environment: dict[str, str], *arguments: str) -> str:
    return subprocess.run([*COMMAND, *arguments], env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main())
