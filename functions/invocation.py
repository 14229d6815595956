"""One invocation of a function: its clients of AWS, kept for the next one, and its log with the run in every line.

Carried by a link, as documents.py is.
"""

import functools
from typing import Any

import boto3
from aws_lambda_powertools import Logger


@functools.cache
def client(service: str) -> Any:
    return boto3.client(service)


def log(execution_arn: str, context: Any) -> Logger:
    logger = Logger()
    logger.set_correlation_id(execution_arn)
    logger.append_keys(request_id=context.aws_request_id)
    return logger
