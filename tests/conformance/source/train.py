"""The training job: its model is what the endpoint then serves (Ray Serve's files too, for AWS's serving image)."""

import argparse
import json
import os
from pathlib import Path

CONFIG = """
applications:
- name: answer
  route_prefix: /
  import_path: deployment:application
"""
DEPLOYMENT = """
import json
from pathlib import Path
from ray import serve

@serve.deployment
class Answer:
    def __init__(self):
        self.model = json.loads(Path(__file__).with_name("answer.json").read_text())

    async def __call__(self, request):
        return {"received": (await request.body()).decode(), "model": self.model}

application = Answer.bind()
"""

parser = argparse.ArgumentParser()
parser.add_argument("--rate", type=float, required=True)
parser.add_argument("--words", required=True)
arguments, _ = parser.parse_known_args()
names = sorted(path.name for path in Path(os.environ["SM_CHANNEL_DATASET"]).iterdir())
model = Path(os.environ["SM_MODEL_DIR"])
(model / "answer.json").write_text(json.dumps({"names": names, "words": arguments.words}))
(model / "config.yaml").write_text(CONFIG)
(model / "deployment.py").write_text(DEPLOYMENT)
print(f"trained on {' '.join(names)}")
print(f"accuracy={1 - abs(arguments.rate - 0.5):.4f}")
