"""What IAM asks of whoever sends, deletes or hides several messages at once."""

import uuid

FUNCTION = """
import boto3

def handler(event, context):
    sqs, entries = boto3.client("sqs"), [{"Id": "1", "MessageBody": "hello"}]
    return sqs.send_message_batch(QueueUrl=event, Entries=entries)["Successful"][0]["Id"]
"""


def send_batch(session, functions):
    """A function's answer that may send messages to its queue and nothing else."""
    url = session.client("sqs").create_queue(QueueName=f"q-{uuid.uuid4().hex[:8]}")["QueueUrl"]
    allowed = {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": "*"}
    return functions.invoke(functions.create(FUNCTION, statements=[allowed]), url)


def test_who_may_send_one_message_may_send_several(session, functions):
    assert send_batch(session, functions) == "1"


def test_upstream_asks_for_an_action_that_iam_does_not_know(upstream, upstream_functions):
    answer = send_batch(upstream, upstream_functions)
    assert "sqs:SendMessageBatch" in answer["errorMessage"]
