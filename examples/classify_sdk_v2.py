"""Classify images by the SageMaker SDK v2's Predictor: `python classify_sdk_v2.py kelpie photo.jpg ...`.

Needs `pip install "sagemaker<3"` (requirements-sdk-v2.txt), AWS credentials and a region; against a local cloud,
`eval "$(kelpie env)"` first.
"""

import sys
from pathlib import Path

from sagemaker.deserializers import JSONDeserializer
from sagemaker.predictor import Predictor
from sagemaker.serializers import IdentitySerializer

CONTENT_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}

endpoint_name, *paths = sys.argv[1:]
predictor = Predictor(endpoint_name, serializer=IdentitySerializer(), deserializer=JSONDeserializer())
for path in map(Path, paths):
    answer = predictor.predict(path.read_bytes(), initial_args={"ContentType": CONTENT_TYPES[path.suffix.lower()]})
    best = answer["predictions"][0]
    print(f"{path}: {best['label']} {best['probability']:.4f}")
