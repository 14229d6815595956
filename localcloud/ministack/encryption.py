"""A repair of MiniStack's S3: objects that ask for SSE-KMS and name no key."""

import functools
from collections.abc import Callable
from typing import Any

from ministack.services import s3

from localcloud.cloud import ACCOUNT_ID, REGION
from localcloud.ministack.repairs import Repair

ALGORITHM = "x-amz-server-side-encryption"
KEY = "x-amz-server-side-encryption-aws-kms-key-id"
AWS_MANAGED_KEY = f"arn:aws:kms:{REGION}:{ACCOUNT_ID}:alias/aws/s3"


def _resolve_sse_write_headers(original: Callable[..., Any]) -> Callable[..., Any]:
    """Without a key it is the account's own: https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingKMSEncryption.html

    The SageMaker SDK v2 uploads source code so."""

    @functools.wraps(original)
    def resolve_sse_write_headers(headers: dict, bucket_name: str) -> Any:
        if headers.get(ALGORITHM) == "aws:kms" and not headers.get(KEY):
            headers = {**headers, KEY: AWS_MANAGED_KEY}
        return original(headers, bucket_name)

    return resolve_sse_write_headers


REPAIRS = [
    Repair(
        "aws:kms without a key is refused",
        s3.__name__,
        "_resolve_sse_write_headers",
        "2affef5a7d37",
        _resolve_sse_write_headers,
    )
]
