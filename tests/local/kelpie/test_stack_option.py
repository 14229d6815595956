"""`--stack NAME`: the same commands from a folder that knows nothing of a local cloud, by AWS's own variables alone."""

import json

import pytest


@pytest.fixture
def elsewhere(kelpie, live):
    """The command with the endpoint URL and credentials that `kelpie env` prints, and no cloud in its folder."""
    kelpie.extra_environment = json.loads(live.ok("env", "--json"))
    return kelpie


@pytest.mark.slow
def test_a_stack_is_found_by_its_name(elsewhere, live):
    there = json.loads(elsewhere.ok("status", "--stack", "kelpie", "--json"))
    here = json.loads(live.ok("status", "--json"))
    assert there["stack"] == here["stack"]
    assert there["cloud"] == {**here["cloud"], "home": None}


@pytest.mark.slow
def test_a_stack_that_is_not_there_is_said_in_a_line(elsewhere):
    assert "there is no stack 'other'" in elsewhere.refused(3, "status", "--stack", "other")


@pytest.mark.slow
def test_every_command_talks_to_the_stack(elsewhere):
    stack = ("--stack", "kelpie")
    bucket = json.loads(elsewhere.ok("status", *stack, "--json"))["stack"]["outputs"]["Bucket"]
    failed = elsewhere("run", f"s3://{bucket}/datasets/none/", *stack, "--json")
    assert failed.returncode == 1
    document = json.loads(failed.stdout)
    assert document["status"] == "FAILED"
    name = document["execution_arn"].rpartition(":")[2]
    assert elsewhere("run", "--attach", name, *stack).returncode == 1
    assert "has ended already" in elsewhere.refused(2, "stop", name, *stack)
    assert "planning" in elsewhere.ok("logs", "plan-run", *stack)


@pytest.mark.slow
def test_images_are_classified_by_the_stack(elsewhere, live, trained):
    assert trained["status"] == "SUCCEEDED"
    image = next((live.folder / "photos" / "test" / "cat").iterdir())
    (row,) = json.loads(elsewhere.ok("classify", str(image), "--stack", "kelpie", "--json"))
    assert row["status"] == "classified"


def test_without_credentials_or_region_it_says_how_to_look(kelpie):
    kelpie.extra_environment = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "none", "HOME": "/nowhere"}
    assert "AWS cannot be asked" in kelpie.refused(3, "status", "--stack", "kelpie")
    kelpie.extra_environment["AWS_DEFAULT_REGION"] = "eu-west-1"
    assert "AWS cannot be asked" in kelpie.refused(3, "status", "--stack", "kelpie")
    kelpie.extra_environment["AWS_PROFILE"] = "nobody"
    assert "AWS cannot be asked" in kelpie.refused(3, "status", "--stack", "kelpie")
