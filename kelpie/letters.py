"""`kelpie inbox`: what waits, what has been answered and how, what was given up, and another try for that."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_plus

from rich.console import Console
from rich.table import Table

from kelpie import documents
from kelpie.inbox import newest_answers, result_key
from kelpie.stack import Stack

MOST_READ = 1000
MOST_REASONS = 20
STATUSES = ("classified", "unknown", "rejected", "failed")


def read(stack: Stack) -> dict[str, Any]:
    """Return the document of `kelpie inbox --json`.

    `waiting` and `dead` are messages, by SQS's approximate counts; `results` counts all, and the statuses those of the
    newest `read` of them. `reasons` are the newest of those that got no label.
    """
    results, listed, _all = newest_answers(stack, MOST_READ)
    counted = Counter(result["status"] for result in results)
    return {
        **waiting(stack),
        "results": listed,
        "read": len(results),
        **{status: counted[status] for status in STATUSES},
        "reasons": [
            {"key": result["key"], "status": result["status"], "reason": result["reason"]}
            for result in results
            if result["reason"]
        ][:MOST_REASONS],
    }


def waiting(stack: Stack) -> dict[str, int]:
    """Return how many messages wait, and how many were given up, by SQS's approximate counts."""
    return {"waiting": _messages(stack, "InboxQueueUrl"), "dead": _messages(stack, "DeadLetterQueueUrl")}


def redrive(stack: Stack) -> int:
    """Put what was given up into the inbox's queue again, its failed result out of the way; return how many messages.

    If it is interrupted, an object without a result is found by the next sweep.
    """
    sqs, s3 = stack.client("sqs"), stack.client("s3")
    dead, moved = stack.outputs["DeadLetterQueueUrl"], 0
    while messages := sqs.receive_message(QueueUrl=dead, MaxNumberOfMessages=10, WaitTimeSeconds=1).get("Messages"):
        for message in messages:
            for bucket, key in _results_of(message["Body"]):
                result = documents.read(s3, f"s3://{bucket}/{key}", "classification")
                if result is not None and result["status"] == "failed":
                    s3.delete_object(Bucket=bucket, Key=key)
            sqs.send_message(QueueUrl=stack.outputs["InboxQueueUrl"], MessageBody=message["Body"])
            sqs.delete_message(QueueUrl=dead, ReceiptHandle=message["ReceiptHandle"])
            moved += 1
    return moved


def show(inbox: dict[str, Any], console: Console) -> None:
    table = Table("Waiting", "Results", *(status.capitalize() for status in STATUSES), "Dead", box=None, pad_edge=False)
    counts = [inbox["waiting"], inbox["results"], *(inbox[status] for status in STATUSES), inbox["dead"]]
    table.add_row(*(str(count) for count in counts))
    console.print(table)
    if inbox["read"] < inbox["results"]:
        console.print(f"The statuses are those of the newest {inbox['read']} results.")
    for one in inbox["reasons"]:
        line = f"{one['key']}  {one['status']}: {one['reason']['code']}: {one['reason']['message']}"
        console.print(line)
    if inbox["dead"]:
        console.print("Try what is dead once more with: kelpie inbox --redrive")


def _messages(stack: Stack, output: str) -> int:
    """Visible, in flight and delayed."""
    names = [f"ApproximateNumberOfMessages{which}" for which in ("", "NotVisible", "Delayed")]
    told = stack.client("sqs").get_queue_attributes(QueueUrl=stack.outputs[output], AttributeNames=names)
    return sum(int(told["Attributes"].get(name, 0)) for name in names)


def _results_of(body: str) -> Iterator[tuple[str, str]]:
    """Bucket and key of the results that a notification's objects have; none if it is no notification."""
    try:
        records = json.loads(body)["Records"]
        stored = [(record["s3"]["bucket"]["name"], record["s3"]["object"]) for record in records]
        for bucket, found in stored:
            version = found.get("versionId") or found["eTag"].strip('"')
            yield bucket, result_key(unquote_plus(found["key"]), version)
    except (ValueError, KeyError, TypeError):
        return
