"""PlanRun in an account with a bucket, a data set of two classes, and no endpoint."""

import pytest

BUCKET = "kelpie-123456789012-eu-west-1"
DATASET = f"s3://{BUCKET}/datasets/dogs"
SPLITS = ("train", "valid", "test")
FROM_SCRATCH = {"dataset": DATASET, "model": {"weights": "none"}, "tuning": {"ranges": {"batch_size": [2]}}}
ARN = "arn:aws:states:eu-west-1:123456789012:execution:kelpie-train-and-deploy:first"


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
        "ENDPOINT_DEADLINE_SECONDS": "3600",
        "ENDPOINT_MAX_INSTANCE_COUNT": "0",
        "ENDPOINT_INVOCATIONS_PER_INSTANCE": "600",
        "JOB_ROLE_ARN": "arn:aws:iam::123456789012:role/jobs",
        "EVALUATION_ROLE_ARN": "arn:aws:iam::123456789012:role/evaluation",
        "SERVING_ROLE_ARN": "arn:aws:iam::123456789012:role/serving",
        "JOB_VOLUME_SIZE_GB": "50",
        "SUBNET_IDS": "",
        "SECURITY_GROUP_IDS": "",
        "NETWORK_ISOLATION": "false",
        "KMS_KEY_ARN": "",
        "COST_TAGS": "application=kelpie",
        "FEATURE_DAYS": "90",
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
