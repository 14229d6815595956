"""A server for the tests of endpoints: the model's `switches.json` and CustomAttributes say what goes wrong."""

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SWITCHES = json.loads((Path(os.environ["MODEL_FOLDER"]) / "switches.json").read_text())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        self.answer(200 if SWITCHES.get("healthy", True) else 503, b"")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        wish = dict(
            part.split("=") for part in (self.headers["X-Amzn-SageMaker-Custom-Attributes"] or "").split() if part
        )
        time.sleep(float(wish.get("sleep", 0)))
        if "ill" in wish:
            SWITCHES["healthy"] = False
        if "exit" in wish:
            os._exit(int(wish["exit"]))
        seen = {name.lower(): value for name, value in self.headers.items()}
        content = {"name": SWITCHES["name"], "pid": os.getpid(), "size": len(body), "headers": seen}
        content["environment"] = {name: os.environ.get(name) for name in ("FROM_MODEL", "AWS_ROLE_FOR_TEST", "HOME")}
        self.answer(int(wish.get("status", 200)), json.dumps(content).encode())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json; from=server")
        self.send_header("X-Amzn-SageMaker-Custom-Attributes", "seen")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *values):
        pass


print(f"server {SWITCHES['name']} starts", flush=True)
if SWITCHES.get("crashes"):
    sys.exit("cannot load the model")
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
time.sleep(SWITCHES.get("starts_in_seconds", 0))
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
