"""Measure what the inbox adds to the endpoint's own time, one photograph after the other in a warm system.

    python benchmarks/inbox_latency.py                     # 40 photographs on a local cloud of its own

Prints one JSON document, in milliseconds: from the end of the upload until the result is there, less what the function
waited for the endpoint; and what of that the function's own reading and converting takes. The rest is S3's
notification, the queue, Lambda and the write. The baseline is a client that asks the endpoint directly; `ratio` is the
whole answer through the inbox against it.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from random import Random

from inbox_under_fire import JPEG, Fire, Image, direct_images_per_second, result_key

WARM_UP = 5
POLL_SECONDS = 0.001


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, Fire(Path(home), Random(0)) as fire:
        for number in range(WARM_UP):
            answered(fire, number)
        direct_ms = 1000 / direct_images_per_second(fire)
        answers = [answered(fire, WARM_UP + number) for number in range(options.images)]
    whole = [milliseconds for milliseconds, _timings in answers]
    beyond = sorted(milliseconds - timings["invoke"] for milliseconds, timings in answers)
    function = [timings["fetch"] + timings["convert"] for _milliseconds, timings in answers]
    print(
        json.dumps(
            {
                "photographs": len(answers),
                "beyond_endpoint_median_ms": round(statistics.median(beyond), 1),
                "beyond_endpoint_90th_ms": round(beyond[int(len(beyond) * 0.9)], 1),
                "of_that_fetch_and_convert_ms": round(statistics.median(function), 1),
                "whole_median_ms": round(statistics.median(whole), 1),
                "direct_ms": round(direct_ms, 1),
                "ratio": round(statistics.median(whole) / direct_ms, 2),
            },
            indent=2,
        )
    )


def answered(fire: Fire, number: int) -> tuple[float, dict[str, float]]:
    """Return the milliseconds from the end of the upload to the result, and the timings in it."""
    content = JPEG + f"label {number}".encode()
    ((key, version),) = fire.drop([Image(f"inbox/{number}.jpg", content, None)])
    started, place = time.perf_counter(), result_key(key, version)
    while True:
        try:
            found = fire.s3.get_object(Bucket=fire.bucket, Key=place)
            break
        except fire.s3.exceptions.NoSuchKey:
            time.sleep(POLL_SECONDS)
    milliseconds = (time.perf_counter() - started) * 1000
    return milliseconds, json.loads(found["Body"].read())["timings_ms"]


if __name__ == "__main__":
    main()
