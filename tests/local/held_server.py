"""The serving code with an engine that answers when it is told to: ARTIFACT PORT FOLDER.

It answers once FOLDER/released is there, and leaves FOLDER/asked when it is first asked. SIGTERM drains it. Three
images may wait. Runs in the serving environment, for test_overload.py.
"""

import signal
import sys
import time
from pathlib import Path

artifact, port, folder = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
sys.path[:0] = [str(artifact), str(artifact / "code")]

import inference  # noqa: E402
import numpy as np  # noqa: E402
import server  # noqa: E402
from artifacts import read_document  # noqa: E402
from deployment import Listener  # noqa: E402


class Held:
    def logits(self, batch: np.ndarray) -> np.ndarray:
        (folder / "asked").touch()
        while not (folder / "released").exists():
            time.sleep(0.01)
        return np.zeros((len(batch), len(description["classes"])), dtype=np.float32)


description = read_document(artifact, "model")
server.LONGEST_WAIT_SECONDS = 2.5 * server.FIRST_GUESS_SECONDS
service = server.Service(inference.Model(Held(), description, inference.FLOAT32), workers=1, batch_size=1)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
listener = Listener(service, ("127.0.0.1", port))
signal.sigwait([signal.SIGTERM])
listener.stop().result()
