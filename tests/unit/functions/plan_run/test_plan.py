"""What PlanRun leaves of a run that can be made: its plan, its code, its names."""

import hashlib
import io
import json
import tarfile
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace

import boto3
import pytest

from tests.unit.functions.plan_run.conftest import ARN, BUCKET, DATASET, FROM_SCRATCH


@pytest.mark.usefixtures("dogs")
def test_the_plan_is_left_in_s3_by_its_contract(plan_run, get):
    answer = plan_run(FROM_SCRATCH)
    plan = get(answer["plan_uri"])
    assert plan["run_id"] == hashlib.sha256(ARN.encode()).hexdigest()[:12]
    assert answer["plan_uri"] == f"s3://{BUCKET}/runs/{plan['run_id']}/plan.json"
    assert get(f"s3://{BUCKET}/runs/{plan['run_id']}/input.json") == FROM_SCRATCH
    assert plan["dataset"]["classes"] == ["001.Affenpinscher", "002.Afghan hound"]
    assert plan["dataset"]["splits"]["train"]["images"] == 4
    assert plan["input"]["tuning"]["mode"] == "full"
    assert plan["input"]["gate"]["must_beat_majority"] is True
    assert plan["previous_endpoint_config"] is None


@pytest.mark.usefixtures("dogs")
def test_the_answer_is_the_plan_without_its_counts(plan_run, get):
    answer = plan_run(FROM_SCRATCH)
    assert answer["plan"] == {**get(answer["plan_uri"]), "dataset": {"uri": f"{DATASET}/"}}


@pytest.mark.usefixtures("dogs")
def test_a_second_attempt_plans_the_same(plan_run):
    first, second = plan_run(FROM_SCRATCH)["plan"], plan_run(FROM_SCRATCH)["plan"]
    assert {**first, "created_at": None} == {**second, "created_at": None}


@pytest.mark.usefixtures("dogs")
def test_the_bundles_hold_the_job_code_and_their_names_are_their_digests(plan_run, s3):
    plan = plan_run(FROM_SCRATCH)["plan"]
    for kind, uri in (
        ("training", plan["code"]["training"]["uri"]),
        ("inference", f"{plan['code']['inference']['uri']}inference_code.tar.gz"),
    ):
        key = uri.removeprefix(f"s3://{BUCKET}/")
        body = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        assert hashlib.sha256(body).hexdigest() == plan["code"][kind]["sha256"]
        names = names_in(body)
        expected = {"training": "train.py", "inference": "inference.py"}[kind]
        assert expected in names
        assert "contracts/model.schema.json" in names
        assert not [name for name in names if "__pycache__" in name or name.startswith(("/", "."))]


@pytest.mark.usefixtures("dogs")
def test_code_that_is_there_is_not_written_again(plan_run, s3):
    s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    plan_run(FROM_SCRATCH)
    plan_run(FROM_SCRATCH)
    versions = s3.list_object_versions(Bucket=BUCKET, Prefix="code/")["Versions"]
    assert len(versions) == 2


@pytest.mark.usefixtures("dogs")
def test_an_endpoint_that_is_there_is_found(plan_run):
    sagemaker = boto3.client("sagemaker")
    role = "arn:aws:iam::123456789012:role/serving"
    sagemaker.create_model(
        ModelName="m", ExecutionRoleArn=role, PrimaryContainer={"Image": "i", "ModelDataUrl": "s3://b/k"}
    )
    variant = {"VariantName": "v", "ModelName": "m", "InstanceType": "ml.m5.large", "InitialInstanceCount": 1}
    sagemaker.create_endpoint_config(EndpointConfigName="former", ProductionVariants=[variant])
    for name in ("kelpie-2", "kelpie"):
        sagemaker.create_endpoint(EndpointName=name, EndpointConfigName="former")
    assert plan_run(FROM_SCRATCH)["plan"]["previous_endpoint_config"] == "former"


@pytest.mark.usefixtures("dogs")
def test_weights_in_s3_become_a_channel(plan_run, s3):
    s3.put_object(Bucket=BUCKET, Key="weights/resnet50.pth", Body=b"weights")
    uri = f"s3://{BUCKET}/weights/resnet50.pth"
    given = {"dataset": DATASET, "model": {"weights": uri}, "tuning": {"ranges": {"batch_size": [4]}}}
    plan = plan_run(given)["plan"]
    for step, with_weights in {"prepare": True, "tune": True, "train": True, "evaluate": False}.items():
        job = plan["requests"][step].get("TrainingJobDefinition", plan["requests"][step])
        channels = {channel["ChannelName"]: channel for channel in job["InputDataConfig"]}
        assert ("weights" in channels) is with_weights, step
    assert plan["requests"]["train"]["HyperParameters"]["weights"] == "channel"


@pytest.mark.usefixtures("dogs")
@pytest.mark.parametrize(
    ("parameters", "option"),
    [
        ({}, "none"),
        (
            {"LossNotDecreasing": {"num_steps": 20.0, "diff_percent": 1e-7}, "ExplodingTensor": {"only_nan": True}},
            "LossNotDecreasing.num_steps=20,LossNotDecreasing.diff_percent=1e-07,ExplodingTensor.only_nan=true",
        ),
    ],
)
def test_rules_parameters_reach_the_training(plan_run, parameters, option):
    plan = plan_run(FROM_SCRATCH | {"debugger": {"parameters": parameters}})["plan"]
    assert plan["requests"]["train"]["HyperParameters"]["debugger_parameters"] == option


@pytest.mark.usefixtures("dogs")
def test_features_are_shared_by_runs_that_would_compute_the_same(app, context, upload):
    def features(name, **model):
        given = {"dataset": DATASET, "model": model, "tuning": {"ranges": {"batch_size": [2]}}}
        answer = app.handler({"execution_arn": f"{ARN}-{name}", "input": given}, context)
        return answer["plan"]["locations"]["features"]

    first = features("a")
    assert features("b") == first
    assert features("c", hidden_units=99) == first
    assert features("d", image_size_px=64) != first
    assert features("e", architecture="resnet18") != first
    upload("train/001.Affenpinscher/c.jpg")
    assert features("f") != first


def test_features_are_shared_by_nobody_for_longer_than_half_of_their_days(load):
    period = load("plan_run", "plan")._feature_period
    first = date(2026, 1, 1)
    periods = [period(f"{first + timedelta(days=day)}T12:00:00Z", 90) for day in range(270)]
    assert max(Counter(periods).values()) == 45
    assert periods == sorted(periods)


@pytest.mark.usefixtures("dogs")
def test_features_that_s3_would_soon_delete_are_computed_anew(app, plan_run, monkeypatch):
    given = {"dataset": DATASET, "tuning": {"ranges": {"batch_size": [2]}}}
    now = plan_run(given)["plan"]["locations"]["features"]
    later = datetime.now(UTC) + timedelta(days=46)
    monkeypatch.setattr(app, "datetime", SimpleNamespace(now=lambda _zone: later))
    assert plan_run(given)["plan"]["locations"]["features"] != now


def test_a_bundle_depends_on_nothing_but_its_contents(load, tmp_path):
    bundles = load("plan_run", "bundles")
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, names in ((first, ("a.py", "b.py")), (second, ("b.py", "a.py"))):
        (folder / "sub").mkdir(parents=True)
        (folder / "__pycache__").mkdir()
        (folder / "__pycache__" / "a.pyc").write_bytes(folder.name.encode())
        for name in names:
            (folder / name).write_text(f"# {name}")
        (folder / "sub" / "c.json").write_text("{}")
    (second / "a.py").chmod(0o755)
    assert bundles.pack(first) == bundles.pack(second)
    assert names_in(bundles.pack(first).body) == ["a.py", "b.py", "sub/c.json"]


def test_a_package_without_its_job_code_is_refused(load, tmp_path):
    bundles = load("plan_run", "bundles")
    with pytest.raises(bundles.BundleError, match="training_code"):
        bundles.pack(tmp_path / "training_code")
    (tmp_path / "training_code").mkdir()
    with pytest.raises(bundles.BundleError, match="training_code"):
        bundles.pack(tmp_path / "training_code")


@pytest.mark.usefixtures("dogs")
@pytest.mark.parametrize(
    ("state", "step"),
    [
        ("PrepareDataset", "prepare"),
        ("TuneHyperparameters", "tune"),
        ("TrainModel", "train"),
        ("EvaluateModel", "evaluate"),
    ],
)
def test_another_attempt_renames_one_job_wherever_the_plan_names_it(plan_run, app, context, get, state, step):
    first = plan_run(FROM_SCRATCH)
    before = get(first["plan_uri"])
    again = app.handler(
        {"execution_arn": ARN, "plan_uri": first["plan_uri"], "state": state, "training_job": ""}, context
    )
    after = get(first["plan_uri"])
    assert again["plan_uri"] == first["plan_uri"]
    assert again["plan"]["names"] == after["names"]
    assert after["names"] == before["names"] | {step: f"kelpie-{before['run_id']}-{step}-2"}
    assert before["names"][step] not in json.dumps(after)
    assert json.dumps(after).replace(after["names"][step], before["names"][step]) == json.dumps(before)


def test_an_attempt_number_is_never_given_twice(load, example):
    plan = load("plan_run", "plan")
    made = example("plan")
    made["names"]["retrain"] = made["names"]["train"].removesuffix("1") + "2"
    assert plan.renumbered(made, "TrainModel", "")["names"]["train"].endswith("-train-3")
    reviewed = made["names"]["train"].removesuffix("1") + "4"
    assert plan.renumbered(made, "TrainModel", reviewed)["names"]["train"].endswith("-train-5")
    assert plan.renumbered(made, "EvaluateModel", reviewed)["names"]["evaluate"].endswith("-evaluate-2")


def names_in(archive):
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return tar.getnames()
