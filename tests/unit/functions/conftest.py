"""Functions as Lambda sees them: their folder on the path, their variables set, AWS played by moto."""

import copy
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import boto3
import pytest
from moto import mock_aws

ROOT = Path(__file__).parents[3]
REGION = "eu-west-1"
BUCKET = f"kelpie-123456789012-{REGION}"


@pytest.fixture
def aws(monkeypatch):
    for key, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "POWERTOOLS_SERVICE_NAME": "kelpie",
        "POWERTOOLS_LOG_LEVEL": "CRITICAL",
    }.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    with mock_aws():
        yield boto3.client


@pytest.fixture
def s3(aws):
    client = aws("s3")
    client.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    return client


@pytest.fixture
def load(aws):  # noqa: ARG001 - no function is imported where it could reach the real AWS
    """Import a function's modules as Lambda does, afresh for each test."""
    loaded = []

    def load(function: str, module: str = "app") -> ModuleType:
        folder = ROOT / "functions" / function
        sys.path.insert(0, str(folder))
        names = [path.stem for path in folder.glob("*.py")]
        for name in names:
            sys.modules.pop(name, None)
        try:
            return importlib.import_module(module)
        finally:
            sys.path.remove(str(folder))
            loaded.extend(names)

    yield load
    for name in loaded:
        sys.modules.pop(name, None)


@pytest.fixture
def context():
    return SimpleNamespace(aws_request_id="request-1")


@pytest.fixture
def example():
    """A fresh copy of a contract's example."""
    return lambda name: json.loads((ROOT / "contracts" / "examples" / f"{name}.json").read_text())


DEBUGGER = {
    "enabled": True,
    "save_interval_steps": 20,
    "max_retrains": 1,
    "actions": {"ExplodingTensor": "lower_learning_rate", "Overfit": "regularise", "ShuffledLabels": "stop"},
    "changes": {"learning_rate_factor": 10, "weight_decay_factor": 10, "dropout_added": 0.2},
}


@pytest.fixture
def plan(example):
    """The example's plan with a completed input, as PlanRun leaves it."""
    plan = example("plan")
    plan["input"] |= {
        "seed": 0,
        "model": {"architecture": "resnet50", "weights": "default", "image_size_px": 224},
        "tuning": {"mode": "frozen_features", "strategy": "Bayesian", "max_jobs": 20, "epochs": 10},
        "training": {"epochs": 20},
        "debugger": DEBUGGER,
        "gate": {
            "min_accuracy": 0,
            "min_macro_f1": 0,
            "min_class_recall": 0,
            "max_calibration_error": 1,
            "must_beat_majority": True,
            "max_regression": 0.05,
            "confidence": 0.95,
            "min_images": 100,
        },
        "serving": {"instance_count": 1, "lock_wait_seconds": 14400, "max_latency_milliseconds": 5000},
    }
    return copy.deepcopy(plan)


@pytest.fixture
def put(s3):
    """Put a document at an s3:// URI."""

    def put(uri, document):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        s3.put_object(Bucket=bucket, Key=key, Body=json.dumps(document).encode())
        return uri

    return put


@pytest.fixture
def get(s3):
    """Get a document from an s3:// URI."""

    def get(uri):
        bucket, _, key = uri.removeprefix("s3://").partition("/")
        return json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())

    return get


@pytest.fixture
def plan_uri(put, plan):
    return put(f"s3://{plan['bucket']}/{plan['prefix']}/plan.json", plan)


@pytest.fixture
def event(plan_uri):
    return {"plan_uri": plan_uri}
