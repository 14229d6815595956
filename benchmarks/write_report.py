"""Measure a run's report: how long it takes to write and to open, and how large it is.

    python benchmarks/write_report.py

The run has 133 classes and 100 trials; what it left lies in an S3 in this process, and Chromium opens the page from a
file. Prints one JSON document. The baselines, measured in the same process: a run of ten classes and four trials that
failed in its training, and an empty page.
"""

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import boto3
from moto import mock_aws
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).parents[1]
ROUNDS = 5
OPENED = "() => { const [entry] = performance.getEntriesByType('navigation'); return entry.loadEventEnd; }"
PAINTED = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"


def main() -> None:
    sys.path.insert(0, str(ROOT))
    from tests.browser.example_run import BUCKET
    from tests.browser.example_runs import KINDS, write_report

    os.environ |= {"AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": "eu-west-1"}
    os.environ |= {"BUCKET": BUCKET, "POWERTOOLS_SERVICE_NAME": "kelpie"}
    with mock_aws(), tempfile.TemporaryDirectory() as folder:
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})

        def write(kind: str) -> tuple[float, Path]:
            run = KINDS[kind]()
            run.put(s3)
            started = time.perf_counter()
            page = write_report(run, s3)["index.html"]
            seconds = time.perf_counter() - started
            path = Path(folder, f"{kind}.html")
            path.write_text(page)
            return seconds, path

        # The first also imports and starts Vega, as the first invocation of a function does.
        first, large = write("large")
        again, _ = write("large")
        small_seconds, _ = write("failed_job")
        empty = Path(folder, "empty.html")
        empty.write_text("<!doctype html><title>empty</title><p>empty")
        with sync_playwright() as playwright:
            chromium = shutil.which("chromium") or shutil.which("google-chrome")
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            opened, painted = opening_ms(browser, large)
            empty_opened, _ = opening_ms(browser, empty)
            browser.close()
        print(
            json.dumps(
                {
                    "page_kb": round(large.stat().st_size / 1e3),
                    "written_first_s": round(first, 2),
                    "written_again_s": round(again, 2),
                    "small_run_written_s": round(small_seconds, 2),
                    "written_ratio": round(again / small_seconds, 2),
                    "opened_ms": round(opened),
                    "painted_ms": round(painted),
                    "empty_page_opened_ms": round(empty_opened),
                    "opened_ratio": round(opened / empty_opened, 1),
                },
                indent=2,
            )
        )


def opening_ms(browser: Browser, path: Path) -> tuple[float, float]:
    """Return milliseconds from navigation to the end of the load event, and to the first paint: medians."""
    opened, painted = [], []
    for _ in range(ROUNDS):
        page = browser.new_page()
        page.goto(path.as_uri())
        page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length > 0")
        opened.append(page.evaluate(OPENED))
        painted.append(page.evaluate(PAINTED))
        page.close()
    return statistics.median(opened), statistics.median(painted)


if __name__ == "__main__":
    main()
