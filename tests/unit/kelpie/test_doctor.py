"""What the doctor says of what it finds."""

import datetime
import socket

import boto3
import botocore.exceptions
import pytest

from kelpie.doctor import account, machine
from kelpie.doctor.check import Check, worst
from kelpie.errors import CloudUnavailable
from kelpie.stack import Stack
from localcloud.containers.environments import COMPLETE, Environments

GIB = 1 << 30
TODAY = datetime.date(2026, 11, 22)


def verdicts(checks):
    return [check.verdict for check in checks]


@pytest.mark.parametrize(
    ("check", "verdict"),
    [
        (machine.check_system("Linux"), "ok"),
        (machine.check_system("Windows"), "missing"),
        (machine.check_python((3, 11)), "ok"),
        (machine.check_python((3, 14)), "missing"),
        (machine.check_make(None), "warning"),
        (machine.check_disk(3 * GIB, True), "ok"),
        (machine.check_disk(3 * GIB, False), "missing"),
        (machine.check_memory(2 * GIB), "warning"),
        (machine.check_environments({"pytorch": True, "ray": False}), "warning"),
        (account.check_endpoint(None), "ok"),
        (account.check_endpoint({"name": "e", "status": "Failed", "failure_reason": "no capacity"}), "missing"),
        (account.check_debugger(""), "ok"),
        (account.check_debugger("503895931360.dkr.ecr.us-east-1.amazonaws.com/rules:latest"), "warning"),
        (account.check_inbox(0), "ok"),
        (account.check_inbox(3), "warning"),
        (account.check_image("1.dkr.ecr.eu-west-1.amazonaws.com/pytorch-inference:2.6-cpu", TODAY), "warning"),
        (account.check_image("1.dkr.ecr.eu-west-1.amazonaws.com/pytorch-training:2.10-cpu", TODAY), "ok"),
        (account.check_image("1.dkr.ecr.eu-west-1.amazonaws.com/pytorch:2.14-cpu-amzn2023-sagemaker", TODAY), "ok"),
        (account.check_image("1.dkr.ecr.eu-west-1.amazonaws.com/pytorch:9.9-cpu", TODAY), "unknown"),
        (account.check_image("1.dkr.ecr.eu-west-1.amazonaws.com/ray:serve-ml-sagemaker-cpu-v1.4", TODAY), "unknown"),
        (account.check_stack(Stack(boto3.Session(region_name="eu-west-1"), "s", "UPDATE_COMPLETE", {})), "ok"),
        (account.check_stack(Stack(boto3.Session(region_name="eu-west-1"), "s", "ROLLBACK_COMPLETE", {})), "warning"),
    ],
)
def test_what_is_found_has_a_verdict_and_what_is_not_well_a_remedy(check, verdict):
    assert check.verdict == verdict
    assert check.found
    assert (check.remedy is None) == (verdict == "ok")


def test_this_checkout_is_whole_and_one_whose_links_became_text_is_not(tmp_path):
    assert machine.check_checkout(machine.ROOT).verdict == "ok"
    for name in machine.LINKS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("../elsewhere")
    assert machine.check_checkout(tmp_path).verdict == "missing"


def test_a_port_in_use_is_missing_and_a_free_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("KELPIE_HOME", str(tmp_path / ".kelpie"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert machine.check_cloud(port).verdict == "missing"
    assert machine.check_cloud(port).verdict == "ok"


def test_an_environment_is_built_once_every_layer_is_whole(tmp_path):
    root, images = tmp_path / "cache", tmp_path / "images"
    for name in ("torch", "pytorch", "job"):
        (images / name).mkdir(parents=True)
        (images / name / "requirements.txt").write_text(f"{name}==1\n")
    environments, job = Environments(root, images), images / "job" / "requirements.txt"
    assert not environments.built("pytorch", job)
    below = None
    for layer, folder in (("torch", "torch"), ("pytorch", "pytorch"), ("pytorch-overlay", "job")):
        assert not environments.built("pytorch", job)
        below = whole(environments, layer, images / folder / "requirements.txt", below)
    assert environments.built("pytorch", job)


def whole(environments, layer, requirements, below):
    """Make a layer's folder as its builder leaves it."""
    from localcloud.containers.environments import Environment, _digest

    folder = environments.root / f"{layer}-{_digest(requirements, below, {})}"
    folder.mkdir(parents=True)
    (folder / COMPLETE).touch()
    return Environment((folder, *(below.layers if below else ())))


def test_quotas_are_held_against_what_kelpie_uses():
    types = ({"ml.m5.xlarge", "ml.g5.xlarge"}, "ml.m5.large")
    values = {"ml.m5.xlarge for training job usage": 1.0, "ml.g5.xlarge for training job usage": 0.0}
    checks = account.check_quotas(values, types)
    assert verdicts(checks) == ["missing", "warning", "unknown", "unknown"]
    assert "ml.g5.xlarge for training job usage: 0 of 2" in checks[0].found
    enough = dict.fromkeys([*values, "ml.m5.large for endpoint usage"], 2.0)
    enough["ml.m5.large for training job usage"] = 1.0
    assert verdicts(account.check_quotas(enough, types)) == ["ok", "ok", "ok", "ok"]


def test_the_job_that_optimises_takes_the_endpoints_type_and_no_more_than_another_job_needs_of_it():
    said = [check.found for check in account.check_quotas({}, ({"ml.m5.large"}, "ml.m5.large"))]
    assert [line.partition(":")[0] for line in said] == [
        "ml.m5.large for training job usage",
        "ml.m5.large for endpoint usage",
    ]
    alone = account.check_quotas({"ml.c5.large for training job usage": 0.0}, ({"ml.m5.large"}, "ml.c5.large"))
    assert alone[1].found.startswith("ml.c5.large for training job usage: 0 of 1")


def test_the_worst_verdict_counts():
    ok, unknown, missing = Check("a", "ok", ""), Check("b", "unknown", ""), Check("c", "missing", "")
    assert (worst([]), worst([ok]), worst([ok, unknown]), worst([unknown, missing, ok])) == (
        "ok",
        "ok",
        "unknown",
        "missing",
    )


def test_an_account_without_the_stack_is_told_how_to_deploy_it(monkeypatch):
    def deployed(name):
        raise CloudUnavailable(f"there is no stack {name!r}")

    monkeypatch.setattr(account, "check_credentials", lambda: Check("credentials", "ok", "account 1"))
    monkeypatch.setattr(account, "deployed", deployed)
    checks = account.check_account("kelpie")
    assert [(check.name, check.verdict) for check in checks] == [("credentials", "ok"), ("stack", "missing")]
    assert "sam deploy" in checks[1].remedy


def test_what_aws_refuses_to_tell_is_unknown_and_no_credentials_are_missing():
    def denied():
        error = {"Error": {"Code": "AccessDeniedException", "Message": "no"}}
        raise botocore.exceptions.ClientError(error, "ListServiceQuotas")

    def without_credentials():
        raise botocore.exceptions.NoCredentialsError

    (refused,) = account._each("quotas", denied)
    assert (refused.verdict, "docs/permissions.md" in refused.remedy) == ("unknown", True)
    assert account._asked("credentials", without_credentials).verdict == "missing"


def test_applied_quotas_count_over_defaults():
    class Paginator:
        def __init__(self, value):
            self.value = value

        def paginate(self, **given):
            assert given == {"ServiceCode": "sagemaker"}
            return [{"Quotas": [{"QuotaName": "q", "Value": self.value}]}]

    class Client:
        def get_paginator(self, operation):
            return Paginator({"list_aws_default_service_quotas": 0.0, "list_service_quotas": 4.0}[operation])

    class Session:
        def client(self, service, **_settings):
            assert service in boto3.Session().get_available_services()
            return Client()

    assert account._quotas(Stack(Session(), "kelpie", "CREATE_COMPLETE", {})) == {"q": 4.0}
