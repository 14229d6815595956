"""Stands in for the endpoint's server: answers with the label that an image carries in its bytes.

`serves` of model.json makes it `crash` at the start, answer `wrong` labels, `errors`, or `slow`.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MODEL = json.loads(Path(os.environ["MODEL_FOLDER"], "model.json").read_text())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.answer(200, {})

    def do_POST(self) -> None:
        label = self.rfile.read(int(self.headers["Content-Length"])).decode().split()[1]
        if MODEL["serves"] == "slow":
            time.sleep(2)
        if MODEL["serves"] == "wrong":
            label = "wrong"
        predictions = [{"label": label, "probability": 0.9}]
        model = {"run_id": None, "weights_sha256": MODEL["weights_sha256"]}
        model |= {"confidence_threshold": 0, "package_arn": os.environ.get("MODEL_PACKAGE_ARN")}
        self.answer(500 if MODEL["serves"] == "errors" else 200, {"predictions": predictions, "model": model})

    def answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        pass


if MODEL["serves"] == "crash":
    sys.exit("the model cannot be loaded")
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
