import boto3
import pytest
from moto import mock_aws


@pytest.fixture
def s3(monkeypatch):
    """A client of an S3 in this process, with the empty bucket `bucket`."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="bucket")
        yield client
