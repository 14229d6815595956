"""Reports as their readers meet them: each kind of run, from documents that keep their contracts."""

import boto3
import pytest
from moto import mock_aws

from tests.browser.example_run import BUCKET, CHAMPION, HOSTILE
from tests.browser.example_runs import KINDS, write_report

SIZE_LIMIT_BYTES = 3_000_000
TITLES = {
    "success": "Deployed",
    "rejection": "Rejected by the gate",
    "debugger_stop": "Stopped by the debugger",
    "failed_job": "Failed",
    "large": "Deployed",
    "hostile": "Failed",
}


@pytest.fixture(scope="session")
def reports(tmp_path_factory):
    """Return the file of a page of a kind of run, which is written once."""
    folder = tmp_path_factory.mktemp("reports")
    environment = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "BUCKET": BUCKET,
        "POWERTOOLS_SERVICE_NAME": "kelpie",
    }

    def report(kind, name="index.html"):
        path = folder / kind / name
        if not path.exists():
            with pytest.MonkeyPatch.context() as patch, mock_aws():
                for name, value in environment.items():
                    patch.setenv(name, value)
                s3 = boto3.client("s3")
                s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
                run = KINDS[kind]()
                run.put(s3)
                pages = write_report(run, s3)
            path.parent.mkdir()
            for one, text in pages.items():
                path.with_name(one).write_text(text)
        return path

    return report


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_report_is_accessible_and_keeps_to_itself(open_page, faults, reports, kind, dark):
    assert reports(kind).stat().st_size < SIZE_LIMIT_BYTES
    page = open_page(reports(kind).as_uri(), dark=dark)
    assert page.inner_text("h1") == TITLES[kind]
    assert faults(page) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_report_fits_a_telephone(open_page, width_beyond, reports, kind):
    page = open_page(reports(kind).as_uri(), width_px=380)
    assert width_beyond(page) == 0


def test_a_report_can_be_read_without_a_mouse(open_page, reports):
    page = open_page(reports("large").as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the outcome"
    page.keyboard.press("Enter")
    assert page.url.endswith("#outcome")
    page.focus("#tuning summary >> nth=-1")
    page.keyboard.press("Enter")
    assert page.locator("#tuning details[open] tbody tr").count() == 100
    # What scrolls by itself can be reached, and is named.
    scrolling = "Array.from(document.querySelectorAll('main *')).filter(e => e.scrollWidth > e.clientWidth + 1"
    scrolling += " && ['auto', 'scroll'].includes(getComputedStyle(e).overflowX))"
    assert page.evaluate(f"{scrolling}.filter(e => e.tabIndex !== 0 || !e.ariaLabel).length") == 0


def test_every_drawing_says_what_it_shows_and_every_picture_what_it_is(open_page, reports):
    page = open_page(reports("success").as_uri())
    drawings = page.locator("svg[role=img]")
    assert drawings.count() == page.locator("svg").count() >= 12
    names = drawings.evaluate_all("all => all.map(one => one.ariaLabel)")
    assert len(set(names)) == len(names)
    assert all(len(name) > 30 for name in names)
    mistakes = page.locator(".mistakes li")
    assert mistakes.count() > 0
    assert mistakes.locator("img").count() == mistakes.count()
    assert "taken for digit-" in mistakes.first.inner_text()


def test_the_champion_stands_beside_the_challenger(open_page, reports):
    page = open_page(reports("rejection").as_uri())
    head, run, *_ = page.locator("#gate table >> nth=1").locator("tr").all()
    assert head.inner_text().split() == ["champion", "challenger"]
    assert CHAMPION in run.inner_text()


def test_the_variants_say_which_one_serves(open_page, reports):
    page = open_page(reports("success").as_uri())
    chosen = page.locator("#serving tr", has_text="chosen")
    assert chosen.count() == 1
    assert chosen.locator("th").inner_text() == "onnx-int8"


def test_a_failed_run_opens_with_its_cause_and_the_end_of_its_log(open_page, reports):
    page = open_page(reports("failed_job").as_uri())
    cause, log = page.locator(".cause"), page.locator("#outcome pre")
    assert "not enough memory" in cause.inner_text()
    assert log.inner_text().startswith("Traceback")
    assert "valid_accuracy" not in log.inner_text()
    assert all(part.bounding_box()["y"] < 900 for part in (cause, log))


def test_nothing_that_users_wrote_is_taken_for_markup_or_code(open_page, reports):
    page = open_page(reports("hostile").as_uri())
    assert page.inner_text(".cause") == HOSTILE
    assert page.locator("script").count() == 0
    assert page.locator("img:not([src^='data:image/jpeg'])").count() == 0
    labels = page.locator("svg text").evaluate_all("all => all.map(one => one.textContent)")
    assert {"{{ 7 * 7 }}", "a].b[0]", "'+alert(3)+'"} <= set(labels)


def test_a_report_prints_on_paper_with_everything_in_it(open_page, reports):
    page = open_page(reports("success").as_uri(), dark=True)
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.querySelector('section')).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("nav").is_hidden()
    assert page.pdf(format="A4").startswith(b"%PDF")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_profilers_page_is_held_to_the_same(open_page, faults, width_beyond, reports, dark):
    page = open_page(reports("success", "profiler-report.html").as_uri(), dark=dark, width_px=380)
    assert page.inner_text("h1") == "Profile of the training"
    assert [one.inner_text() for one in page.locator("nav a").all()] == [
        "Steps",
        "Machine",
        "Operators",
        "Curves",
        "Rules",
    ]
    assert page.locator("#curves svg").count() == 3  # loss, learning rate, gradient norms
    assert (faults(page), width_beyond(page)) == ([], 0)
