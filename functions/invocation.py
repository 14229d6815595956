"""One invocation of a function: its clients of AWS, kept for the next one, and its log with the run in every line.

Carried by a link, as documents.py is.
"""

from typing import Any

import boto3
from aws_lambda_powertools import Logger
from botocore.config import Config

_clients: dict[str, Any] = {}


def client(service: str, config: Config | None = None) -> Any:
    """Return the client of a service, as the first call made it."""
    if service not in _clients:
        _clients[service] = boto3.client(service, config=config)
    return _clients[service]


def log(execution_arn: str, context: Any) -> Logger:
    logger = Logger()
    logger.set_correlation_id(execution_arn)
    logger.append_keys(request_id=context.aws_request_id)
    return logger
