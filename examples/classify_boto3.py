"""Classify images by boto3: `python classify_boto3.py kelpie photo.jpg ...` prints label and probability of each.

Needs boto3, AWS credentials and a region; against a local cloud, `eval "$(kelpie env)"` first.
"""

import json
import sys
from pathlib import Path

import boto3

CONTENT_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}

endpoint_name, *paths = sys.argv[1:]
runtime = boto3.client("sagemaker-runtime")
for path in map(Path, paths):
    response = runtime.invoke_endpoint(
        EndpointName=endpoint_name, ContentType=CONTENT_TYPES[path.suffix.lower()], Body=path.read_bytes()
    )
    best = json.loads(response["Body"].read())["predictions"][0]
    print(f"{path}: {best['label']} {best['probability']:.4f}")
