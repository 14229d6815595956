"""The server of the `tiny` image: answers /invocations with what it was sent and with the model's own `answer.json`,
if it has one.

The request's header X-Amzn-SageMaker-Custom-Attributes can ask for another status: `status=500`. A model with the file
`unhealthy` fails /ping, one with the file `broken` does not start. Run with MODEL_FOLDER and PORT in the environment.
"""

import json
import os
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

MODEL = Path(os.environ["MODEL_FOLDER"])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer in two packets would wait 40 ms for the first's acknowledgement

    def do_GET(self) -> None:
        self._answer(404 if self.path != "/ping" else 503 if (MODEL / "unhealthy").exists() else 200, {})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        wish = self.headers.get("X-Amzn-SageMaker-Custom-Attributes", "")
        answer = MODEL / "answer.json"
        model = json.loads(answer.read_text()) if answer.exists() else None
        self._answer(
            int(wish.removeprefix("status=")) if wish.startswith("status=") else 200,
            {
                "received": body.decode(errors="replace"),
                "content_type": self.headers.get("Content-Type"),
                "model": model,
            },
        )

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        print(format % values, flush=True)


if __name__ == "__main__":
    if (MODEL / "broken").exists():
        sys.exit("the model is broken")
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
