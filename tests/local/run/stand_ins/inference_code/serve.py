"""Stands in for the endpoint's server: answers with the label that an image carries in its bytes, mistakes apart.

`serves` of model.json makes it `crash` at the start, be `unhealthy` for ever, answer `wrong` labels, or wrong ones to
all but the evaluation's samples (`wrong_on_traffic`), `errors`, or errors when it is not new any more (`errors_later`),
or `slow`.
"""

import hashlib
import json
import os
import re
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MODEL = json.loads(Path(os.environ["MODEL_FOLDER"], "model.json").read_text())
SERVES = MODEL["serves"]
STARTED = time.monotonic()
NEW_SECONDS = 3
OTHER = {"cat": "dog", "dog": "cat"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer in two packets would wait 40 ms for the first's acknowledgement

    def do_GET(self) -> None:
        self.answer(500 if SERVES == "unhealthy" else 200, {})

    def do_POST(self) -> None:
        image = self.rfile.read(int(self.headers["Content-Length"]))
        digest = hashlib.sha256(image).hexdigest()
        label = re.search(rb"cat|dog", image)[0].decode()
        if digest in MODEL["mistaken"] or (SERVES == "wrong_on_traffic" and digest not in MODEL["samples"]):
            label = OTHER[label]
        if SERVES == "slow":
            time.sleep(1)
        if SERVES == "wrong":
            label = "wrong"
        model = {"run_id": None, "weights_sha256": MODEL["weights_sha256"]}
        model |= {"confidence_threshold": 0, "package_arn": os.environ.get("MODEL_PACKAGE_ARN")}
        fails = SERVES == "errors" or (SERVES == "errors_later" and time.monotonic() > STARTED + NEW_SECONDS)
        predictions = [{"label": label, "probability": 0.9}]
        self.answer(500 if fails else 200, {"predictions": predictions, "model": model})

    def answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        pass


if SERVES == "crash":
    sys.exit("the model cannot be loaded")
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
