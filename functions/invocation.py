"""One invocation of a function: its clients of AWS, kept for the next one, and its log with the run in every line.

Carried by a link, as documents.py is.
"""

from typing import Any

import boto3
from aws_lambda_powertools import Logger
from botocore.config import Config

CONNECT_SECONDS, ANSWER_SECONDS = 3, 15
"""A service that stays silent for so long is asked again, for which botocore's minute leaves a function no time."""
MODEL_SECONDS = 65
"""An endpoint's model may take 60:
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-inference-code.html"""

_clients: dict[str, Any] = {}


def client(service: str, config: Config | None = None) -> Any:
    """Return the client of a service, as the first call made it."""
    if service not in _clients:
        seconds = MODEL_SECONDS if service == "sagemaker-runtime" else ANSWER_SECONDS
        patience = Config(connect_timeout=CONNECT_SECONDS, read_timeout=seconds)
        _clients[service] = boto3.client(service, config=patience.merge(config) if config else patience)
    return _clients[service]


def log(execution_arn: str, context: Any) -> Logger:
    logger = Logger()
    logger.set_correlation_id(execution_arn)
    logger.append_keys(request_id=context.aws_request_id)
    return logger
