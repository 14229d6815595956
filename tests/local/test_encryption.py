"""Objects with SSE-KMS and the account's own key."""

import os

import pytest
from botocore.exceptions import ClientError


def put(session) -> dict:
    s3, bucket = session.client("s3"), f"kms-{os.urandom(4).hex()}"
    s3.create_bucket(Bucket=bucket)
    s3.put_object(Bucket=bucket, Key="k", Body=b"secret", ServerSideEncryption="aws:kms")
    return s3.get_object(Bucket=bucket, Key="k")


def test_without_a_key_it_is_the_accounts_own(session):
    stored = put(session)
    assert stored["Body"].read() == b"secret"
    assert stored["ServerSideEncryption"] == "aws:kms"
    assert stored["SSEKMSKeyId"].endswith("alias/aws/s3")


def test_upstream_refuses_it(upstream):
    with pytest.raises(ClientError, match="requires a key id"):
        put(upstream)
