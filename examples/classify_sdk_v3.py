"""Classify images by the SageMaker SDK v3's Endpoint: `python classify_sdk_v3.py kelpie photo.jpg ...`.

Needs `pip install sagemaker-core` (requirements-sdk-v3.txt), AWS credentials and a region; against a local cloud,
`eval "$(kelpie env)"` first.
"""

import json
import sys
from pathlib import Path

from sagemaker.core.resources import Endpoint

CONTENT_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}

endpoint_name, *paths = sys.argv[1:]
endpoint = Endpoint.get(endpoint_name=endpoint_name)
for path in map(Path, paths):
    answer = endpoint.invoke(body=path.read_bytes(), content_type=CONTENT_TYPES[path.suffix.lower()])
    best = json.loads(answer.body.read())["predictions"][0]
    print(f"{path}: {best['label']} {best['probability']:.4f}")
