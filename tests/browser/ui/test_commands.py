"""The commands that show what the page shows, as a user with the permissions of docs/permissions.md and no others."""

import json
from pathlib import Path


def test_the_report_of_a_run_is_fetched_whether_it_succeeded_or_not(ui, finished, kelpie, tmp_path):
    failed = ui.stack.run(ui.stack.dataset(mistakes=20), gate={"min_accuracy": 0.9}, endpoint_name=ui.stack.name)
    assert failed["status"] == "FAILED"
    for name in (finished, failed["name"]):
        fetched = kelpie("report", name, "--no-browser", "--output", str(tmp_path / name))
        assert fetched.returncode == 0, fetched.stderr
        assert Path(fetched.stdout.strip()).read_text().startswith("<!doctype html>")
    assert "rejected" in (tmp_path / failed["name"] / "index.html").read_text().lower()
    newest = json.loads(kelpie("report", "--json").stdout)
    assert newest["execution_arn"] == failed["executionArn"]
    assert newest["report"].endswith(f".cache/kelpie/reports/{failed['name']}/index.html")


def test_a_run_without_a_report_is_said_to_have_none(ui, kelpie):
    ui.stack.cloud.inject("StartDelay", Name=f"{ui.stack.name}-*-prepare-1", Seconds=3600)
    arn = ui.stack.start(ui.stack.dataset(), endpoint_name=ui.stack.name)
    name = arn.rpartition(":")[2]
    early = kelpie("report", name, "--no-browser")
    assert (early.returncode, f"Follow it: kelpie run --attach {name}" in early.stderr) == (1, True), early.stderr
    ui.stack.client("stepfunctions").stop_execution(executionArn=arn)
    ui.stack.end_of(arn)
    ui.stack.cloud.clear_faults()
    late = kelpie("report", arn, "--no-browser")
    assert late.returncode == 1
    assert f"the run {name} is ABORTED and has left no report: kelpie logs {name}" in late.stderr
    assert kelpie("report", "none", "--no-browser").returncode == 2


def test_everything_that_looks_is_permitted(finished, kelpie):
    for arguments in (["status"], ["status", "--watch"], ["logs", finished], ["inbox"], ["run", "--attach", finished]):
        done = kelpie(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)


def test_the_endpoint_may_be_measured(finished, kelpie, tmp_path):
    assert finished
    image = tmp_path / "cat.png"
    image.write_bytes(b"what the stand-in takes for a cat")
    done = kelpie("bench-endpoint", str(image), "--most-clients", "1", "--seconds", "1", "--json")
    assert done.returncode == 0, done.stderr
    (level,) = json.loads(done.stdout)["levels"]
    assert (level["answered"] > 0, level["failed"]) == (True, 0), level


def test_the_doctor_finds_the_account_well_but_for_what_a_local_cloud_lacks(finished, kelpie):
    assert finished
    done = kelpie("doctor", "--json")
    verdicts = {check["name"]: check["verdict"] for check in json.loads(done.stdout)}
    assert done.returncode == 0, done.stderr
    assert {name for name, verdict in verdicts.items() if verdict != "ok"} <= {"quotas", "image", "inbox"}
