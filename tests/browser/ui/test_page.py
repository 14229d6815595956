"""`kelpie ui` as a person uses it: start a run and watch it end, drop pictures and read the cards, open the report."""

import http.client
import io
import json
import re
from urllib.parse import urlsplit

import pytest
from PIL import Image, PngImagePlugin
from playwright.sync_api import expect

SETTINGS = {
    "model.weights": "none",
    "tuning.max_jobs": "2",
    "tuning.epochs": "1",
    "tuning.ranges.batch_size": "2",
    "training.epochs": "3",
    "debugger.enabled": "false",
}


def picture(label):
    """A real PNG that bears its label, which is what the stand-in of the endpoint reads."""
    words = PngImagePlugin.PngInfo()
    words.add_text("label", label)
    content = io.BytesIO()
    Image.new("RGB", (64, 48), {"cat": "orange", "dog": "steelblue"}[label]).save(content, "PNG", pnginfo=words)
    return content.getvalue()


def test_a_run_is_started_from_the_form_and_watched_to_its_report(ui, open_ui, faults):
    page = open_ui("/start")
    for group in ("model", "tuning", "tuning.ranges", "training", "debugger"):
        page.locator(f"[id='group-{group}'] > summary").click()
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#dataset-problem")).to_contain_text("say which")
    expect(page.get_by_label("Data set")).to_be_focused()
    page.locator("[id='tuning.max_jobs']").fill("0")
    page.locator("[id='tuning.max_jobs']").blur()
    expect(page.locator("[id='tuning.max_jobs-problem']")).to_have_text("expected an integer from 1 to 500")
    assert faults(page) == []
    page.get_by_label("Data set").fill(ui.stack.dataset(mistakes=1))
    for key, text in SETTINGS.items():
        field = page.locator(f"[id='{key}']")
        if field.evaluate("one => one.tagName") == "SELECT":
            field.select_option(text)
        else:
            field.fill(text)
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/runs/*")
    expect(page.locator("#path [aria-current=step]")).to_be_visible()
    expect(page.get_by_role("status")).to_contain_text("Ended")
    assert "Ended SUCCEEDED" in page.inner_text("#now"), page.inner_text("#outcome")
    expect(page.locator("#trials tbody tr")).to_have_count(2)
    expect(page.get_by_role("img", name=re.compile("^Loss by epoch; after epoch 3 of 3"))).to_be_visible()
    expect(page.locator("#path .failed")).to_have_count(0)
    page.locator("#logs > summary").click()
    expect(page.locator("#log-lines")).to_contain_text("epoch 3/3")
    with page.expect_popup() as opened:
        page.get_by_role("link", name="Report", exact=True).click()
    report = opened.value
    report.wait_for_load_state()
    assert page.url.rpartition("/")[2] in report.content() or "succeeded" in report.content()
    assert report.evaluate("window.origin") == "null"


def test_dropped_files_come_back_as_cards(finished, open_ui, faults):
    assert finished
    page = open_ui("/inbox")
    files = [("one.png", "cat"), ("two.png", "dog"), ("three & <b>.png", "cat")]
    pictures = [{"name": name, "mimeType": "image/png", "buffer": picture(label)} for name, label in files]
    page.get_by_label("Drop pictures here").set_input_files(
        [*pictures, {"name": "note.txt", "mimeType": "text/plain", "buffer": b"no picture"}]
    )
    expect(page.get_by_role("status")).to_have_text("4 of 4 answered.")
    for name, label in files:
        card = page.get_by_role("listitem").filter(has=page.get_by_role("heading", name=name))
        expect(card.locator(".label")).to_contain_text(label)
        expect(card.locator(".chip")).to_have_text("classified")
        thumbnail = card.get_by_role("img", name=name)
        assert thumbnail.evaluate("async one => { await one.decode(); return one.naturalWidth }") == 64
    card = page.get_by_role("listitem").filter(has=page.get_by_role("heading", name="note.txt"))
    expect(card.locator(".chip")).to_have_text("rejected")
    assert faults(page) == []
    page.reload()
    expect(page.get_by_role("heading", name="three & <b>.png")).to_be_visible()


def test_a_run_is_stopped_after_a_question(ui, open_ui):
    name = ui.stack.start(ui.stack.dataset(), endpoint_name=ui.stack.name).rpartition(":")[2]
    page = open_ui(f"/runs/{name}")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Stop the run").click()
    expect(page.get_by_role("status")).to_contain_text("Ended ABORTED")
    expect(page.get_by_role("button", name="Stop the run")).to_have_count(0)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width_px", [1280, 380])
def test_every_page_is_usable_wide_and_narrow_light_and_dark(finished, open_ui, faults, width_beyond, dark, width_px):
    page = open_ui(dark=dark, width_px=width_px)
    for path in ("/", "/start", f"/runs/{finished}", "/inbox", "/runs/none"):
        if path != "/runs/none":
            page.goto(page.url.partition("/")[0] + "//" + urlsplit(page.url).netloc + path)
            page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        assert (path, faults(page), width_beyond(page)) == (path, [], 0)


def test_the_keyboard_leads_past_the_links_and_to_every_run(finished, open_ui):
    page = open_ui()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    run = page.get_by_role("link", name=finished)
    for _ in range(20):
        page.keyboard.press("Tab")
        if run.evaluate("one => one === document.activeElement"):
            break
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/runs/{finished}")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({}, 403),
    ],
)
def test_a_forged_request_starts_nothing(ui, headers, status):
    before = len(
        ui.stack.client("stepfunctions").list_executions(stateMachineArn=ui.stack.outputs["StateMachineArn"])[
            "executions"
        ]
    )
    port = urlsplit(ui.origin).port
    body = json.dumps({"dataset": ui.stack.dataset(), "settings": SETTINGS})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    cookie = {"Cookie": f"kelpie-{port}={ui.key}", "Content-Type": "text/plain"}
    connection.request("POST", "/runs", body, {**cookie, **headers})
    assert connection.getresponse().status == status
    connection.close()
    listed = ui.stack.client("stepfunctions").list_executions(stateMachineArn=ui.stack.outputs["StateMachineArn"])
    assert len(listed["executions"]) == before
