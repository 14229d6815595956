"""Drop images into the inbox of a stack on a local cloud while everything goes wrong, and count what comes back.

    python benchmarks/inbox_under_fire.py                  # 2,000 images; Linux (it kills functions by /proc)
    python benchmarks/inbox_under_fire.py --images 120     # as in the tests

The endpoint is a tiny server that answers at once, so that the figures are those of the inbox. The queue's visibility
is set to 20 seconds instead of the template's 720, lest a killed function's messages take twelve minutes to come back.
Prints one JSON document; `ratio` is images a second against one client that asks the same endpoint directly, one image
after the other, before anything goes wrong. Exits with 1 if a version has no result, more than one, or no event.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import signal
import socket
import statistics
import sys
import tarfile
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from localcloud import LocalCloud, deploy

ROOT = Path(__file__).parents[1]
NAME = "fire"
VISIBILITY_SECONDS = 20
DOUBLED, LOST, HOSTILE = 0.05, 0.03, 0.02
THROTTLED_SECONDS = 5
FUNCTIONS_KILLED = 5
JPEG = b"\xff\xd8\xff\xe0"
HOSTILE_FILES = (b"", b"hello", b"PK\x03\x04", b"GIF89a cut off", b"%PDF-1.7", JPEG + b"unreadable", b"\0" * 5000)
SERVER = """
import json, os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer in two packets would wait 40 ms for the first's acknowledgement
    def do_GET(self): self.answer(200, {})
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if b"unreadable" in body: return self.answer(400, {"error": "UnreadableImage", "reason": "cut off"})
        predictions = [{"label": body[4:].decode(), "probability": 0.9}]
        model = {"run_id": None, "weights_sha256": "0" * 64, "confidence_threshold": 0, "package_arn": None}
        self.answer(200, {"predictions": predictions, "model": model})
    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


@dataclass(frozen=True)
class Image:
    key: str
    content: bytes
    label: str | None
    """What the server answers to it; None if it is hostile."""


class Fire:
    """A stack with an endpoint, and what is done to it."""

    def __init__(self, home: Path, chance: random.Random):
        self.cloud, self.chance = LocalCloud(home), chance
        self.port = free_port()
        self.functions_killed = 0

    def client(self, service: str) -> Any:
        return self.cloud.session().client(service)

    def __enter__(self) -> "Fire":
        self.cloud.start(self.port)
        image = "123456789012.dkr.ecr.us-east-1.amazonaws.com/tiny:1"
        self.outputs = deploy(
            self.cloud.session(), ROOT / "template.yaml", NAME, {"NamePrefix": NAME, "ServingImageUri": image}
        )
        self.bucket, self.queue = self.outputs["Bucket"], self.outputs["InboxQueueUrl"]
        self.s3 = self.client("s3")
        self.client("sqs").set_queue_attributes(
            QueueUrl=self.queue, Attributes={"VisibilityTimeout": str(VISIBILITY_SECONDS)}
        )
        resource = self.client("cloudformation").describe_stack_resource(
            StackName=NAME, LogicalResourceId="ServingRole"
        )
        role_name = resource["StackResourceDetail"]["PhysicalResourceId"]
        role = self.client("iam").get_role(RoleName=role_name)["Role"]["Arn"]
        self.s3.put_object(Bucket=self.bucket, Key=f"runs/{NAME}/model.tar.gz", Body=packed("serve.py", SERVER))
        container = {"Image": image, "ModelDataUrl": f"s3://{self.bucket}/runs/{NAME}/model.tar.gz"}
        sagemaker = self.client("sagemaker")
        sagemaker.create_model(ModelName=NAME, PrimaryContainer=container, ExecutionRoleArn=role)
        variant = {
            "VariantName": "all",
            "ModelName": NAME,
            "InstanceType": "ml.m5.large",
            "InitialInstanceCount": 1,
        }
        sagemaker.create_endpoint_config(EndpointConfigName=NAME, ProductionVariants=[variant])
        self.create_endpoint()
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.cloud.stop()

    def create_endpoint(self) -> None:
        sagemaker = self.client("sagemaker")
        sagemaker.create_endpoint(EndpointName=NAME, EndpointConfigName=NAME)
        sagemaker.get_waiter("endpoint_in_service").wait(
            EndpointName=NAME, WaiterConfig={"Delay": 1, "MaxAttempts": 600}
        )

    def listen(self) -> None:
        """Collect the inbox's events in a queue."""
        sqs, events = self.client("sqs"), self.client("events")
        self.heard = sqs.create_queue(QueueName=f"{NAME}-heard")["QueueUrl"]
        names = {"QueueUrl": self.heard, "AttributeNames": ["QueueArn"]}
        arn = sqs.get_queue_attributes(**names)["Attributes"]["QueueArn"]
        pattern = json.dumps({"source": ["kelpie"], "detail-type": ["ImageClassified", "ImageRejected"]})
        rule = events.put_rule(Name=f"{NAME}-heard", EventPattern=pattern)["RuleArn"]
        allowed = {
            "Effect": "Allow",
            "Principal": {"Service": "events.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": arn,
            "Condition": {"ArnEquals": {"aws:SourceArn": rule}},
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        sqs.set_queue_attributes(QueueUrl=self.heard, Attributes={"Policy": policy})
        events.put_targets(Rule=f"{NAME}-heard", Targets=[{"Id": "queue", "Arn": arn}])

    def drop(self, images: list[Image]) -> list[tuple[str, str]]:
        """Put the images, return key and version of each."""

        def put(image: Image) -> tuple[str, str]:
            stored = self.s3.put_object(Bucket=self.bucket, Key=image.key, Body=image.content)
            return image.key, stored["VersionId"]

        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(put, images))

    @contextlib.contextmanager
    def events_lost(self) -> Iterator[None]:
        """The bucket tells nobody what is put meanwhile."""
        told = self.s3.get_bucket_notification_configuration(Bucket=self.bucket)
        self.s3.put_bucket_notification_configuration(Bucket=self.bucket, NotificationConfiguration={})
        try:
            yield
        finally:
            queues = {"QueueConfigurations": told["QueueConfigurations"]}
            self.s3.put_bucket_notification_configuration(Bucket=self.bucket, NotificationConfiguration=queues)

    def tell_again(self, dropped: list[tuple[str, str]]) -> None:
        for key, version in dropped:
            stored = {"key": quote_plus(key), "versionId": version, "eTag": "0" * 32, "size": 1}
            record = {"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": self.bucket}, "object": stored}}
            self.client("sqs").send_message(QueueUrl=self.queue, MessageBody=json.dumps({"Records": [record]}))

    def take_endpoint_away(self, seconds: float) -> None:
        sagemaker = self.client("sagemaker")
        sagemaker.delete_endpoint(EndpointName=NAME)
        time.sleep(seconds)
        self.create_endpoint()

    def kill_functions(self) -> None:
        """End every process that runs the classifying function, as a lack of memory would."""
        wanted = f"AWS_LAMBDA_FUNCTION_NAME={NAME}-classify-image".encode()
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                environment = (entry / "environ").read_bytes()
                if wanted in environment.split(b"\0") and str(self.cloud.home).encode() in environment:
                    os.kill(int(entry.name), signal.SIGKILL)
                    self.functions_killed += 1

    def restart_cloud(self) -> None:
        self.cloud.stop()
        self.cloud.start(self.port)
        self.client("sagemaker").get_waiter("endpoint_in_service").wait(
            EndpointName=NAME, WaiterConfig={"Delay": 1, "MaxAttempts": 600}
        )

    def sweep(self) -> dict[str, Any]:
        """Sweep as the schedule does, but for what has only just come."""
        function = self.client("lambda")
        name = f"{NAME}-sweep-inbox"
        variables = function.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        function.update_function_configuration(
            FunctionName=name, Environment={"Variables": variables | {"YOUNGEST_MINUTES": "0"}}
        )
        answer = json.loads(function.invoke(FunctionName=name, Payload=b"{}")["Payload"].read())
        if "queued" not in answer:
            raise RuntimeError(f"the sweep failed: {answer}")
        return answer

    def results(self) -> list[str]:
        pages = self.s3.get_paginator("list_object_versions").paginate(Bucket=self.bucket, Prefix="results/")
        return [version["Key"] for page in pages for version in page.get("Versions", [])]

    def waiting(self) -> int:
        names = ["", "NotVisible", "Delayed"]
        names = [f"ApproximateNumberOfMessages{name}" for name in names]
        told = self.client("sqs").get_queue_attributes(QueueUrl=self.queue, AttributeNames=names)
        return sum(int(told["Attributes"][name]) for name in names)

    def events(self) -> list[str]:
        """Return the ids of the events that were heard."""
        sqs, ids = self.client("sqs"), []
        while messages := sqs.receive_message(QueueUrl=self.heard, MaxNumberOfMessages=10).get("Messages"):
            ids += [json.loads(message["Body"])["detail"]["id"] for message in messages]
        return ids


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=600, help="seconds for all results to come")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        report = under_fire(Path(home), options.images, options.seed, options.timeout)
    print(json.dumps(report, indent=2))
    unheard = report["versions_in"] - report["events_heard"]
    return 0 if report["lost"] == report["results_doubled"] == report["wrong"] == unheard == 0 else 1


def under_fire(home: Path, count: int, seed: int, timeout_seconds: float) -> dict[str, Any]:
    """Return the report of `count` images dropped while everything goes wrong."""
    chance = random.Random(seed)
    images = make_images(count, chance)
    with Fire(home, chance) as fire:
        baseline = direct_images_per_second(fire)
        started = time.monotonic()
        lost, told = images[: max(1, int(count * LOST))], images[max(1, int(count * LOST)) :]
        with fire.events_lost():
            dropped = fire.drop(lost)
        first_half, second_half = told[: len(told) // 2], told[len(told) // 2 :]
        stop = threading.Event()
        killer = threading.Thread(target=kill_now_and_then, args=(fire, stop))
        killer.start()
        dropped += fire.drop(first_half)
        fire.tell_again(chance.sample(dropped, max(1, int(count * DOUBLED))))
        away = threading.Thread(target=fire.take_endpoint_away, args=(10,))
        away.start()
        dropped += fire.drop(second_half[: len(second_half) // 2])
        away.join()
        stop.set()
        killer.join()
        fire.restart_cloud()
        fire.cloud.inject("Throttling", Action="InvokeEndpoint", PerSecond=1, Times=None)
        dropped += fire.drop(second_half[len(second_half) // 2 :])
        time.sleep(THROTTLED_SECONDS)
        fire.cloud.clear_faults()
        swept = wait_for_results(fire, {result_key(*one): 1 for one in dropped}, timeout_seconds)
        seconds = time.monotonic() - started
        return report(fire, images, dropped, seconds, baseline) | {"swept": swept}


def report(
    fire: Fire, images: list[Image], dropped: list[tuple[str, str]], seconds: float, baseline: float
) -> dict[str, Any]:
    found = Counter(fire.results())
    expected = [result_key(key, version) for key, version in dropped]
    labels = {image.key: image.label for image in images}
    documents = {}
    for (key, _), at in zip(dropped, expected, strict=True):
        if at in found:
            body = fire.s3.get_object(Bucket=fire.bucket, Key=at)["Body"].read()
            documents[key] = json.loads(body)
    heard = Counter(fire.events())
    delays = [document["timings_ms"].get("invoke", 0) for document in documents.values()]
    return {
        "versions_in": len(dropped),
        "results_out": len(documents),
        "lost": len([at for at in expected if at not in found]),
        "results_doubled": sum(times - 1 for times in found.values()),
        "results_of_nothing": len(set(found) - set(expected)),
        "wrong": len([key for key, document in documents.items() if document["label"] != labels[key]]),
        "statuses": dict(Counter(document["status"] for document in documents.values())),
        "events_heard": len(heard),
        "events_doubled": sum(times - 1 for times in heard.values()),
        "functions_killed": fire.functions_killed,
        "seconds": round(seconds, 1),
        "images_per_second": round(len(documents) / seconds, 1),
        "invoke_median_ms": round(statistics.median(delays), 1) if delays else None,
        "direct_images_per_second": round(baseline, 1),
        "ratio": round(len(documents) / seconds / baseline, 3),
    }


def make_images(count: int, chance: random.Random) -> list[Image]:
    """Keys of every kind; contents of a few bytes, which the server answers with what they say."""
    names = ("{}.jpg", "my dog {}.jpg", "a+b {}.jpg", "100%25 {}.jpg", "{}-犬-😀.jpg", "{}-" + "d" * 900)
    images = []
    for number in range(count):
        key = f"inbox/{names[number % len(names)].format(number)}"
        if chance.random() < HOSTILE:
            images.append(Image(key, chance.choice(HOSTILE_FILES), None))
        else:
            images.append(Image(key, JPEG + f"label {number}".encode(), f"label {number}"))
    return images


def kill_now_and_then(fire: Fire, stop: threading.Event) -> None:
    for _ in range(FUNCTIONS_KILLED):
        if stop.wait(fire.chance.uniform(0.5, 3)):
            return
        fire.kill_functions()


def wait_for_results(fire: Fire, expected: dict[str, int], timeout_seconds: float) -> int:
    """Return how many versions the sweep queued; it begins when nothing waits any more."""
    deadline, swept = time.monotonic() + timeout_seconds, 0
    while time.monotonic() < deadline and expected.keys() - set(fire.results()):
        if fire.waiting() == 0:
            swept += fire.sweep()["queued"]
        time.sleep(1)
    while time.monotonic() < deadline and fire.waiting():
        time.sleep(0.5)  # doubled notifications that are still to be found answered
    return swept


def direct_images_per_second(fire: Fire, count: int = 50) -> float:
    runtime = fire.client("sagemaker-runtime")
    started = time.monotonic()
    for number in range(count):
        body = JPEG + f"label {number}".encode()
        runtime.invoke_endpoint(EndpointName=NAME, ContentType="image/jpeg", Body=body)["Body"].read()
    return count / (time.monotonic() - started)


def result_key(key: str, version: str) -> str:
    return f"results/{hashlib.sha256(key.encode()).hexdigest()}/{version}.json"


def packed(name: str, text: str) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(text.encode())
        archive.addfile(entry, io.BytesIO(text.encode()))
    return content.getvalue()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
