"""The answer as tags of the object itself, for lifecycle rules and policies that go by tags.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html
"""

import re
from typing import Any

from aws_lambda_powertools import Logger
from botocore.exceptions import ClientError

STATUS, LABEL = "kelpie-status", "kelpie-label"
MOST_TAGS = 10
LONGEST_VALUE = 256
NOT_ALLOWED = r"[^\w\s+\-=.:/@]"
GONE = ("NoSuchKey", "NoSuchVersion", "MethodNotAllowed")


def tag(s3: Any, result: dict[str, Any], version_id: str | None) -> None:
    """Put status and label of a result to the object's tags and keep its others; where there is no room, leave it."""
    stored = {"Bucket": result["bucket"], "Key": result["key"]} | ({"VersionId": version_id} if version_id else {})
    try:
        others = s3.get_object_tagging(**stored)["TagSet"]
        tags = [one for one in others if one["Key"] not in (STATUS, LABEL)] + tags_of(result)
        if len(tags) > MOST_TAGS:
            Logger().warning("no room for tags", extra={"key": result["key"], "tags": len(others)})
            return
        s3.put_object_tagging(**stored, Tagging={"TagSet": tags})
    except ClientError as error:
        if error.response["Error"]["Code"] not in GONE:
            raise


def tags_of(result: dict[str, Any]) -> list[dict[str, str]]:
    """Return the tags that tell of a result; what no tag may hold becomes an underscore."""
    tags = [{"Key": STATUS, "Value": result["status"]}]
    if result["label"] is not None:
        tags.append({"Key": LABEL, "Value": re.sub(NOT_ALLOWED, "_", result["label"])[:LONGEST_VALUE]})
    return tags
