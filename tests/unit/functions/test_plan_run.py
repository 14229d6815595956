import hashlib
import io
import json
import tarfile
import zipfile

import boto3
import fastjsonschema
import pytest

BUCKET = "kelpie-123456789012-eu-west-1"
ARN = "arn:aws:states:eu-west-1:123456789012:execution:kelpie-train-and-deploy:first"
DATASET = f"s3://{BUCKET}/datasets/dogs"
SPLITS = ("train", "valid", "test")
FROM_SCRATCH = {"dataset": DATASET, "model": {"weights": "none"}, "tuning": {"ranges": {"batch_size": [2]}}}


@pytest.fixture
def app(load, monkeypatch):
    for key, value in {
        "BUCKET": BUCKET,
        "NAME_PREFIX": "kelpie",
        "TRAINING_IMAGE_URI": "1.dkr.ecr.eu-west-1.amazonaws.com/pytorch:2.14-cpu-amzn2023-sagemaker",
        "TRAINING_GPU_IMAGE_URI": "1.dkr.ecr.eu-west-1.amazonaws.com/pytorch:2.14-cu133-amzn2023-sagemaker",
        "DEBUGGER_RULES_IMAGE_URI": "",
        "SERVING_IMAGE_URI": "1.dkr.ecr.eu-west-1.amazonaws.com/ray:serve-ml-sagemaker-cpu-v1.4",
        "PREPARE_INSTANCE_TYPE": "ml.m5.xlarge",
        "TUNE_INSTANCE_TYPE": "ml.m5.xlarge",
        "TRAIN_INSTANCE_TYPE": "ml.m5.2xlarge",
        "EVALUATE_INSTANCE_TYPE": "ml.m5.xlarge",
        "ENDPOINT_INSTANCE_TYPE": "ml.m5.large",
        "JOB_ROLE_ARN": "arn:aws:iam::123456789012:role/jobs",
        "EVALUATION_ROLE_ARN": "arn:aws:iam::123456789012:role/evaluation",
        "SERVING_ROLE_ARN": "arn:aws:iam::123456789012:role/serving",
        "JOB_VOLUME_SIZE_GB": "50",
        "SUBNET_IDS": "",
        "SECURITY_GROUP_IDS": "",
        "NETWORK_ISOLATION": "false",
        "KMS_KEY_ARN": "",
        "COST_TAGS": "application=kelpie",
    }.items():
        monkeypatch.setenv(key, value)
    return load("plan_run")


@pytest.fixture
def upload(s3):
    def upload(*paths, body=b"image"):
        for path in paths:
            s3.put_object(Bucket=BUCKET, Key=f"datasets/dogs/{path}", Body=body)

    return upload


@pytest.fixture
def dogs(upload):
    """Two classes, two images each in every split."""
    classes, files = ("001.Affenpinscher", "002.Afghan hound"), ("a.jpg", "b.PNG")
    upload(*(f"{split}/{name}/{file}" for split in SPLITS for name in classes for file in files))


@pytest.fixture
def plan_run(app, context):
    return lambda given: app.handler({"execution_arn": ARN, "input": given}, context)


@pytest.fixture
def refused(plan_run):
    """The name and the message of the error that an input comes to."""

    def refused(given):
        with pytest.raises(Exception) as caught:
            plan_run(given)
        return type(caught.value).__name__, str(caught.value)

    return refused


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


@pytest.fixture
def archive(upload):
    """dogImages.zip: two classes, three images each in train/ and test/, no valid/."""

    def archive(name="dogImages.zip", damage=0):
        paths = [f"{split}/{label}/{n}.jpg" for split in ("train", "test") for label in "ab" for n in range(3)]
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as opened:
            for path in ("README.md", *paths):
                opened.writestr(f"dogImages/{path}", bytes(9))
        upload(name, body=content.getvalue()[damage:])

    return archive


@pytest.mark.parametrize("name", ["", "/dogImages.zip"])
def test_an_archive_is_planned_by_its_directory(archive, plan_run, get, name):
    archive()
    given = {**FROM_SCRATCH, "dataset": f"{DATASET}{name}", "data": {"valid_share": 0.2}}
    plan = get(plan_run(given)["plan_uri"])
    dataset = plan["dataset"]
    assert (dataset["archive"], dataset["classes"]) == ("dogImages.zip", ["a", "b"])
    assert {split: found["images"] for split, found in dataset["splits"].items()} == {"train": 4, "valid": 2, "test": 6}
    (channel,) = [one for one in plan["requests"]["evaluate"]["InputDataConfig"] if one["ChannelName"] == "dataset"]
    assert channel["DataSource"]["S3DataSource"]["S3Uri"] == f"{DATASET}{name or '/'}" == dataset["uri"]
    assert plan["requests"]["prepare"]["HyperParameters"]["valid_share"] == "0.2"
    assert plan["requests"]["prepare"]["HyperParameters"]["near_duplicates"] == "drop"


def test_an_archive_of_which_the_beginning_is_missing_is_refused(archive, refused):
    archive(damage=3000)
    name, message = refused(FROM_SCRATCH)
    assert name == "DatasetError"
    assert f"{DATASET}/dogImages.zip is no zip archive" in message


def test_only_an_archives_directory_is_fetched(load, archive, s3, monkeypatch):
    dataset, fetched = load("plan_run", "dataset"), []
    archive()
    monkeypatch.setattr(dataset, "RANGE_BYTES", 256)
    get_object = s3.get_object

    def counted(**request):
        fetched.append(request["Range"])
        return get_object(**request)

    monkeypatch.setattr(s3, "get_object", counted)
    surveyed = dataset.survey(s3, f"{DATASET}/", {"valid": 0.15, "test": 0.15})
    assert surveyed["splits"]["train"]["images"] == 4
    assert not any(one.startswith("bytes=0-") for one in fetched)


def test_a_listing_of_several_pages_is_read_to_its_end(upload, plan_run, get, monkeypatch):
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "7")
    upload(*(f"{split}/{name}/{number}.jpg" for split in SPLITS for name in "ab" for number in range(5)))
    plan = get(plan_run(FROM_SCRATCH)["plan_uri"])
    assert [split["images"] for split in plan["dataset"]["splits"].values()] == [10, 10, 10]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("dogs", ["JSON object", '"dogs"']),
        (None, ["JSON object", "null"]),
        ([1], ["JSON object", "[1]"]),
        ({}, ["dataset is missing"]),
        ({"dataset": 3}, ["dataset: 3 is not allowed", "string"]),
        ({"dataset": "/home/dogs"}, ["dataset", "/home/dogs", "s3://"]),
        ({"dataset": DATASET, "tunning": {}}, ["unknown key tunning", "did you mean tuning?"]),
        ({"dataset": DATASET, "tuning": {"max_job": 3}}, ["unknown key tuning.max_job", "did you mean max_jobs?"]),
        ({"dataset": DATASET, "zzz": 1}, ["unknown key zzz", "known keys are"]),
        ({"dataset": DATASET, "tuning": {"max_jobs": 0}}, ["tuning.max_jobs", "0 is not allowed", "1 to 500"]),
        ({"dataset": DATASET, "tuning": {"max_jobs": "6"}}, ["tuning.max_jobs", '"6"', "whole number"]),
        ({"dataset": DATASET, "tuning": {"max_jobs": 2.5}}, ["tuning.max_jobs", "2.5"]),
        ({"dataset": DATASET, "tuning": {"strategy": "Grid"}}, ["tuning.strategy", '"Grid"', "Bayesian, Random"]),
        ({"dataset": DATASET, "model": {"dropout": 0.99}}, ["model.dropout", "0.99", "0 to 0.95"]),
        ({"dataset": DATASET, "max_unreadable": -1}, ["max_unreadable", "-1", "0 or more"]),
        ({"dataset": DATASET, "training": 3}, ["training", "3", "object"]),
        ({"dataset": DATASET, "debugger": {"enabled": "yes"}}, ["debugger.enabled", '"yes"', "true or false"]),
        ({"dataset": DATASET, "model": {"weights": "best"}}, ["model.weights", '"best"']),
        (
            {"dataset": DATASET, "tuning": {"ranges": {"eps": {"min": 0}}}},
            ["tuning.ranges.eps.min", "0 is not allowed", "above 0 and at most 1"],
        ),
        (
            {"dataset": DATASET, "tuning": {"ranges": {"learning_rate": {"min": 0.5}}}},
            ["tuning.ranges.learning_rate", "min 0.5 must be below max 0.1"],
        ),
        (
            {"dataset": DATASET, "tuning": {"ranges": {"eps": {"max": 1, "scaling": "ReverseLogarithmic"}}}},
            ["tuning.ranges.eps", "ReverseLogarithmic", "below 1"],
        ),
        ({"dataset": DATASET, "tuning": {"ranges": {"batch_size": []}}}, ["tuning.ranges.batch_size", "1 to 30"]),
        (
            {"dataset": DATASET, "model": {"weights": "none"}, "tuning": {"mode": "frozen_features"}},
            ["frozen_features", "model.weights is 'none'"],
        ),
        ({"dataset": DATASET, "endpoint_name": "other"}, ["endpoint_name", '"other"', "'kelpie-'"]),
        (
            {"dataset": DATASET, "instances": {"endpoint": "ml.inf2.xlarge"}},
            ["instances.endpoint", "ml.inf2.xlarge", "Inferentia"],
        ),
        ({"dataset": DATASET, "model": {"weights": f"s3://{BUCKET}/none.pth"}}, ["model.weights", "none.pth", "404"]),
        ({"dataset": DATASET}, ["tuning.ranges.batch_size holds 128", "only 4 images"]),
    ],
)
@pytest.mark.usefixtures("dogs")
def test_input_that_cannot_be_run_is_refused_by_key_value_and_what_is_allowed(refused, given, said):
    if isinstance(given, dict) and "none.pth" in str(given):
        given = {**given, "tuning": {"ranges": {"batch_size": [2]}}}
    name, message = refused(given)
    assert name == "InvalidInput"
    for part in said:
        assert part in message


@pytest.mark.usefixtures("dogs")
def test_a_whole_number_may_be_written_with_a_point(plan_run):
    given = {**FROM_SCRATCH, "training": {"epochs": 3.0}}
    assert plan_run(given)["plan"]["requests"]["train"]["HyperParameters"]["epochs"] == "3"


@pytest.mark.usefixtures("dogs")
def test_there_are_never_more_trials_at_a_time_than_trials(plan_run):
    plan = plan_run({**FROM_SCRATCH, "tuning": {"max_jobs": 1, "ranges": {"batch_size": [2]}}})["plan"]
    assert plan["requests"]["tune"]["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxParallelTrainingJobs"] == 1


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        ([], ["holds no images", "train/, valid/ and test/"]),
        ([".DS_Store", "train/", "README.md"], ["holds no images"]),
        (
            [f"{split}/{name}/1.jpg" for split in ("valid", "test") for name in "ab"],
            ["no folder train/", "test/, valid/"],
        ),
        ([f"{split}/{name}/1.jpg" for split in ("train", "test") for name in "ab"], ["a has 1 images", "valid"]),
        ([f"{name}/{number}.jpg" for name in "ab" for number in range(2)], ["a has 2 images", "at least 3"]),
        (["a.zip", "b.zip"], ["2 archives, a.zip, b.zip"]),
        ([f"{split}/a/1.jpg" for split in ("training", "valid", "test")], ["no folder train/", "training/"]),
        (["a.jpg", "b.jpg"], ["2 files that are not at <class>/<image>"]),
        ([f"{split}/a/1.jpg" for split in SPLITS], ["one class only, a"]),
        (
            [f"{split}/{name}/1.jpg" for split in SPLITS for name in "ab" if (split, name) != ("valid", "b")],
            ["valid/ has no images of b", "valid/ has a"],
        ),
        (
            [f"{split}/{name}/1.jpg" for split in SPLITS for name in (("a", "B") if split == "test" else ("a", "b"))],
            ["has no images of B", "train/ has a, b"],
        ),
        (
            [f"{split}/{name}/1.{kind}" for split in SPLITS for name in "ab" for kind in ("jpg", "txt")],
            ["6 files that are not an image", "test/a/1.txt", "and 1 more"],
        ),
        (["1.jpg", *(f"{split}/{name}/1.jpg" for split in SPLITS for name in "ab")], ["1 file", "outside of", "1.jpg"]),
        (
            ["train/1.jpg", *(f"{split}/{name}/1.jpg" for split in SPLITS for name in "ab")],
            ["1 file", "train/1.jpg", "<split>/<class>/<image>"],
        ),
        (
            ["train/a/b/1.jpg", *(f"{split}/{name}/1.jpg" for split in SPLITS for name in "ab")],
            ["train/a/b/1.jpg", "<split>/<class>/<image>"],
        ),
        (
            ["extra/a/1.jpg", *(f"{split}/{name}/1.jpg" for split in SPLITS for name in "ab")],
            ["extra/a/1.jpg", "outside of"],
        ),
    ],
)
def test_a_data_set_that_cannot_be_trained_on_is_refused_with_what_was_found(upload, refused, paths, said):
    upload(*paths)
    name, message = refused(FROM_SCRATCH)
    assert name == "DatasetError"
    for part in said:
        assert part in message


@pytest.mark.usefixtures("dogs")
def test_empty_files_are_named_with_their_count(upload, refused):
    upload("train/001.Affenpinscher/z.jpg", "test/001.Affenpinscher/z.jpg", body=b"")
    name, message = refused(FROM_SCRATCH)
    assert name == "DatasetError"
    assert "2 files that are empty" in message
    assert "train/001.Affenpinscher/z.jpg" in message


@pytest.mark.usefixtures("dogs")
def test_what_file_managers_leave_and_a_licence_beside_the_splits_are_no_part_of_the_data_set(upload, plan_run):
    upload("train/.DS_Store", "train/001.Affenpinscher/Thumbs.db", "__MACOSX/x", "train/001.Affenpinscher/", "LICENSE")
    plan_run(FROM_SCRATCH)


def test_a_bucket_that_is_not_there_is_a_data_set_that_is_not_there(refused):
    name, message = refused({**FROM_SCRATCH, "dataset": "s3://nobodys-bucket-at-all/dogs"})
    assert name == "DatasetError"
    assert "s3://nobodys-bucket-at-all/dogs/" in message
    assert "NoSuchBucket" in message


@pytest.mark.usefixtures("dogs")
def test_nothing_is_written_for_a_run_that_is_refused(upload, refused, s3):
    upload("train/001.Affenpinscher/z.jpg", body=b"")
    refused(FROM_SCRATCH)
    assert s3.list_objects_v2(Bucket=BUCKET, Prefix="runs/")["KeyCount"] == 0


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


def test_every_default_of_the_input_passes_its_own_contract(load, example):
    run_input = load("plan_run", "run_input")
    instances = dict.fromkeys(("prepare", "tune", "train", "evaluate", "endpoint"), "ml.m5.large")
    completed = run_input.complete(example("execution_input"), "kelpie", instances)
    schema = json.loads((run_input.CONTRACTS / "execution_input.schema.json").read_text())
    fastjsonschema.compile(schema, use_default=False)(completed)
    assert completed["tuning"]["ranges"]["learning_rate"] == {"min": 1e-05, "max": 0.1, "scaling": "Logarithmic"}
    assert completed["tuning"]["ranges"]["batch_size"] == [64, 128]


def names_in(archive):
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return tar.getnames()
