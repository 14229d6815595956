"""The lineage: what the model was made from and by, with digests, and where each thing is to be found."""

from collections.abc import Iterator
from typing import Any

from charts import Table
from markupsafe import Markup
from run import Run


def section(run: Run) -> dict[str, Any]:
    return {
        "origins": Table(("what", "value"), list(_origins(run))),
        "documents": Table(("document", "where"), [(name, _object(run, uri)) for name, uri in run.left.uris.items()]),
    }


def _origins(run: Run) -> Iterator[tuple[str, Any]]:
    plan, console = run.plan, run.console
    yield "execution", _link(console.execution(), run.execution_arn)
    if not plan:
        return
    yield "planned", plan["created_at"]
    yield "data set", _object(run, plan["dataset"]["uri"])
    digests = {
        "data": run.document("evaluation").get("data_digest") or run.document("manifest").get("digest"),
        "listing of the data set": plan["dataset"]["listing_digest"],
        "training code": plan["code"]["training"]["sha256"],
        "inference code": plan["code"]["inference"]["sha256"],
        "model weights": run.document("evaluation").get("weights_sha256"),
    }
    yield from (
        (f"digest: {what}", Markup("<code>{}</code>").format(digest)) for what, digest in digests.items() if digest
    )
    model = plan["input"].get("model", {})
    yield from ((f"model: {name}", value) for name, value in model.items())
    yield from ((f"image: {name}", uri) for name, uri in plan["images"].items())
    if package := run.model_package_arn:
        yield "model package", _link(console.sagemaker("model-packages", package), package)
    last_jobs = {job.step: job.name for job in run.left.jobs}
    yield from ((f"job: {step}", _link(console.sagemaker("jobs", name), name)) for step, name in last_jobs.items())
    names = plan["names"]
    entered = {state.name for state in run.course.states}
    for what, name, kind, state in (
        ("tuning job", "tune", "hyper-tuning-jobs", "TuneHyperparameters"),
        ("model", "model", "models", "CreateModel"),
        ("endpoint configuration", "endpoint_config", "endpointConfig", "CreateEndpointConfig"),
        ("endpoint", "endpoint", "endpoints", "WaitForEndpoint"),
    ):
        if state in entered:
            yield what, _link(console.sagemaker(kind, names[name]), names[name])


def _object(run: Run, uri: str) -> Markup:
    return _link(run.console.s3(uri), uri)


def _link(address: str, text: str) -> Markup:
    return Markup('<a href="{}">{}</a>').format(address, text)
