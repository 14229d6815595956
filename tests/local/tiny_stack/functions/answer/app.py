"""Answers what it is asked, and copies what its queue tells it of: the function of a stack for tests."""

import json
import os
import urllib.parse

import boto3
import humanize
from shared.wording import GREETING


class AskedToFail(Exception):
    pass


def answer(event, _context):
    if event.get("fail"):
        raise AskedToFail("as asked")
    return {"greeting": GREETING, "million": humanize.intword(1_000_000), "number": event.get("number", 0) + 1}


def copy(event, _context):
    s3 = boto3.client("s3")
    for message in event["Records"]:
        for record in json.loads(message["body"]).get("Records", []):
            key = urllib.parse.unquote_plus(record["s3"]["object"]["key"])
            s3.put_object(Bucket=os.environ["BUCKET"], Key=f"copied/{key}", Body=b"seen")
    return {"batchItemFailures": []}
