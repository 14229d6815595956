"""What an account needs for a stack: credentials, region, the stack, quotas, images that are patched, no Debugger."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from typing import Any

import boto3
import botocore.exceptions
from botocore.config import Config

from kelpie import letters, status
from kelpie.doctor.check import Check
from kelpie.errors import KelpieError
from kelpie.stack import CLIENT_SETTINGS, Stack, deployed

ENDPOINT_INSTANCES = 2
"""An update runs the old and the new fleet side by side."""
TRAINING_INSTANCES = 2
"""The default of tuning.max_parallel_jobs."""
OPTIMIZING_INSTANCES = 1
"""OptimizeModel measures where the model will serve: a training job on the endpoint's instance type."""
PATCHED_UNTIL: dict[str, datetime.date | None] = {
    # https://aws.github.io/deep-learning-containers/reference/support_policy, and the data that it is made of, docs/src
    # in https://github.com/aws/deep-learning-containers: a version's patches end after 12 months.
    "pytorch:2.6": datetime.date(2026, 1, 29),
    "pytorch-inference:2.6": datetime.date(2026, 6, 30),
    "pytorch:2.7": datetime.date(2026, 4, 23),
    "pytorch:2.8": datetime.date(2026, 8, 6),
    "pytorch:2.9": datetime.date(2026, 10, 15),
    "pytorch:2.10": datetime.date(2027, 1, 21),
    "pytorch:2.11": datetime.date(2027, 4, 30),
    "pytorch:2.12": datetime.date(2027, 7, 2),
    "pytorch:2.13": datetime.date(2027, 7, 20),
    "pytorch:2.14": datetime.date(2027, 9, 28),
    # Of the Ray Serve images AWS names no such date.
    "ray:v1.4": None,
    "ray:v1.5": None,
}
POLICY = "https://aws.github.io/deep-learning-containers/reference/support_policy"
RAY_RELEASES = "https://aws.github.io/deep-learning-containers/ray/changelog/"
DEBUGGER_CLOSED = datetime.date(2026, 7, 30)


def check_account(stack_name: str) -> list[Check]:
    """Look at the account that ordinary credentials reach. What cannot be asked is said, and the rest is looked at."""
    found = [_asked("credentials", check_credentials)]
    if found[0].verdict != "ok":
        return found
    try:
        stack = deployed(stack_name)
    except KelpieError as error:
        return [*found, Check("stack", "missing", str(error), "sam build && sam deploy --guided")]
    settings = _asked_settings(stack)
    return [
        *found,
        check_stack(stack),
        _asked("endpoint", lambda: check_endpoint(status.endpoint(stack))),
        _asked("inbox", lambda: check_inbox(letters.waiting(stack)["dead"])),
        *_each("quotas", lambda: check_quotas(_quotas(stack), instance_types(settings()))),
        *_each("images", lambda: check_images(settings(), datetime.datetime.now(datetime.UTC).date())),
        _asked("debugger", lambda: check_debugger(settings().get("DEBUGGER_RULES_IMAGE_URI", ""))),
    ]


def check_credentials() -> Check:
    identity = boto3.Session().client("sts", config=CLIENT_SETTINGS).get_caller_identity()
    return Check("credentials", "ok", f"account {identity['Account']} as {identity['Arn']}")


def check_stack(stack: Stack) -> Check:
    found = f"{stack.name} in {stack.session.region_name}: {stack.status}"
    if stack.status.endswith("_COMPLETE") and "ROLLBACK" not in stack.status:
        return Check("stack", "ok", found)
    events = f"aws cloudformation describe-stack-events --stack-name {stack.name}"
    return Check("stack", "warning", found, f"see what failed first: {events}")


def check_endpoint(described: dict[str, Any] | None) -> Check:
    if described is None:
        return Check("endpoint", "ok", "none yet: a run makes it")
    found = f"{described['name']}: {described['status']}"
    if described["status"] != "Failed":
        return Check("endpoint", "ok", found)
    remedy = f"aws sagemaker delete-endpoint --endpoint-name {described['name']}, then kelpie run"
    return Check("endpoint", "missing", f"{found}: {described['failure_reason']}", remedy)


def check_inbox(dead: int) -> Check:
    if not dead:
        return Check("inbox", "ok", "nothing was given up")
    return Check("inbox", "warning", f"{dead} messages were given up", "kelpie inbox, then kelpie inbox --redrive")


def instance_types(settings: dict[str, str]) -> tuple[set[str], str]:
    """Return the jobs' instance types and the endpoint's, as PlanRun has them."""
    jobs = {settings[f"{job}_INSTANCE_TYPE"] for job in ("PREPARE", "TUNE", "TRAIN", "EVALUATE")}
    return jobs, settings["ENDPOINT_INSTANCE_TYPE"]


def check_quotas(quotas: dict[str, float], types: tuple[set[str], str]) -> list[Check]:
    """quotas: Service Quotas' values by name. Many of SageMaker's begin at 0 in a new account."""
    jobs, endpoint = types
    needed = {f"{instance} for training job usage": TRAINING_INSTANCES for instance in sorted(jobs)}
    needed.setdefault(f"{endpoint} for training job usage", OPTIMIZING_INSTANCES)
    needed[f"{endpoint} for endpoint usage"] = ENDPOINT_INSTANCES
    return [_check_quota(name, quotas.get(name), count) for name, count in needed.items()]


def _check_quota(name: str, value: float | None, needed: int) -> Check:
    if value is None:
        remedy = "look it up in Service Quotas, Amazon SageMaker"
        return Check("quota", "unknown", f"{name}: Service Quotas does not name it", remedy)
    found = f"{name}: {value:g} of {needed} that Kelpie uses by default"
    if value >= needed:
        return Check("quota", "ok", found)
    remedy = f"ask for {needed} in Service Quotas, Amazon SageMaker, {name}"
    return Check("quota", "missing" if value < 1 else "warning", found, remedy)


def check_images(settings: dict[str, str], today: datetime.date) -> list[Check]:
    return [check_image(settings[f"{which}_IMAGE_URI"], today) for which in ("TRAINING", "SERVING")]


def check_image(uri: str, today: datetime.date) -> Check:
    image, version = uri.rpartition("/")[2], version_of(uri)
    if version not in PATCHED_UNTIL:
        found = f"{image}: this version of Kelpie knows no date at which its patches end"
        return Check("image", "unknown", found, f"AWS's dates: {POLICY}")
    until = PATCHED_UNTIL[version]
    if until is None:
        found = f"{image}: AWS names no date at which its patches end"
        return Check("image", "unknown", found, f"see whether a newer one has replaced it: {RAY_RELEASES}")
    if until >= today:
        return Check("image", "ok", f"{image}: patched until {until}")
    remedy = f"deploy with the parameters TrainingImageUri and ServingImageUri left empty, or newer ones: {POLICY}"
    return Check("image", "warning", f"{image}: no patches since {until}", remedy)


def version_of(uri: str) -> str:
    """Return an image's framework and its version: pytorch:2.14, pytorch-inference:2.6, ray:v1.4."""
    repository, _, tag = uri.rpartition("/")[2].partition(":")
    version = tag.rpartition("-")[2] if repository == "ray" else tag.partition("-")[0]
    return f"{repository.removesuffix('-training')}:{version}"


def check_debugger(rules_image: str) -> Check:
    """The managed service is closed to accounts that did not use it before; Kelpie's own rules do not need it."""
    if not rules_image:
        return Check("debugger", "ok", f"Kelpie's own rules; the managed ones, closed since {DEBUGGER_CLOSED}, are off")
    found = f"{rules_image}: SageMaker Debugger takes no account that did not use it before {DEBUGGER_CLOSED}"
    remedy = "unless this account did: sam deploy with ManagedDebuggerRulesImageUri left empty; Kelpie's own rules stay"
    return Check("debugger", "warning", found, remedy)


def _quotas(stack: Stack) -> dict[str, float]:
    """Return the values that are in force: applied ones over defaults."""
    once = CLIENT_SETTINGS.merge(Config(retries={"total_max_attempts": 1}))  # somebody waits for the answer
    client = stack.session.client("service-quotas", config=once)
    found: dict[str, float] = {}
    for operation in ("list_aws_default_service_quotas", "list_service_quotas"):
        for page in client.get_paginator(operation).paginate(ServiceCode="sagemaker"):
            found |= {quota["QuotaName"]: quota["Value"] for quota in page["Quotas"]}
    return found


def _asked_settings(stack: Stack) -> Callable[[], dict[str, str]]:
    """Return a function that reads what PlanRun was deployed with."""
    name = f"{stack.endpoint_name}-plan-run"
    return lambda: stack.client("lambda").get_function_configuration(FunctionName=name)["Environment"]["Variables"]


def _asked(name: str, check: Callable[[], Check]) -> Check:
    return next(iter(_each(name, lambda: [check()])))


def _each(name: str, checks: Callable[[], Iterable[Check]]) -> list[Check]:
    """Make checks; what AWS refuses to tell, or cannot be reached for, is a verdict of its own."""
    try:
        return list(checks())
    except botocore.exceptions.ClientError as error:
        remedy = "ask for the permissions of docs/permissions.md" if _is_denied(error) else None
        return [Check(name, "unknown", str(error), remedy)]
    except botocore.exceptions.BotoCoreError as error:
        return [Check(name, "missing", str(error), "aws configure, or aws sso login; then aws sts get-caller-identity")]


def _is_denied(error: botocore.exceptions.ClientError) -> bool:
    return error.response["Error"]["Code"] in ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation")
