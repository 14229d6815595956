import boto3
import pytest
from moto import mock_aws

from kelpie.stack import Stack


@pytest.fixture
def stack(monkeypatch):
    """A stack in an AWS in this process, with the empty, versioned bucket `bucket`."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with mock_aws():
        found = Stack(boto3.Session(region_name="us-east-1"), "kelpie", "CREATE_COMPLETE", {"Bucket": "bucket"})
        s3 = found.client("s3")
        s3.create_bucket(Bucket="bucket")
        s3.put_bucket_versioning(Bucket="bucket", VersioningConfiguration={"Status": "Enabled"})
        yield found


@pytest.fixture
def s3(stack):
    """A client of its S3."""
    return stack.client("s3")
