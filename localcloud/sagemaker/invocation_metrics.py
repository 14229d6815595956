"""What endpoints tell CloudWatch of their invocations: the metrics of AWS/SageMaker that alarms watch.

https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html. Each metric has the dimensions EndpointName
and VariantName, and once more with EndpointConfigName beside them, which tells the fleets of an update apart:
https://docs.aws.amazon.com/sagemaker/latest/dg/deployment-guardrails-configuration.html
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from localcloud.sagemaker.account import Account
from localcloud.sagemaker.deployments import Deployment
from localcloud.sagemaker.gathering import Gathering

logger = logging.getLogger(__name__)

NAMESPACE = "AWS/SageMaker"
PER_INSTANCE = "InvocationsPerInstance"
PUT_SECONDS = 60.0
"""How long values are gathered until they are put: AWS's minute."""
WATCHED_PUT_SECONDS = 5.0
"""The same while an update bakes: its alarms are waited for."""
LATENCY_DIGITS = 2
"""Significant digits of a latency. An emulated CloudWatch keeps every distinct value that it is given."""
MOST_VALUES = 150  # of one datum: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html
MOST_DATA = 500  # of one request; the limits are 1,000 and 1 MB

_Series = tuple[str, str, str, str]  # endpoint, configuration, variant, metric


class InvocationMetrics:
    """What is gathered when the service closes is dropped."""

    def __init__(self, account: Account):
        self._account = account
        self._watched, self._lock = 0, threading.Lock()
        self._values = Gathering[tuple[_Series, float]](
            "metrics of endpoints", self._seconds, self._put, put_at_close=False
        )

    def record(
        self,
        endpoint: str,
        deployment: Deployment,
        instances: int,
        status: int,
        model_seconds: float,
        overhead_seconds: float,
    ) -> None:
        """Take in one request that a container was asked. instances: of the variant now. status: the container's; 0 if
        it gave no answer, which is counted as a server error.
        """
        config, variant = deployment.config_name, deployment.variant_name
        values = {
            "Invocations": 1,
            PER_INSTANCE: 1 / max(1, instances),
            "Invocation4XXErrors": int(400 <= status < 500),
            "Invocation5XXErrors": int(status >= 500 or status == 0),
            "InvocationModelErrors": int(not 200 <= status < 300),
            "ModelLatency": _microseconds(model_seconds),
            "OverheadLatency": _microseconds(overhead_seconds),
        }
        self._values.add(*(((endpoint, config, variant, metric), value) for metric, value in values.items()))

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Put what there is sooner for as long as this lasts."""
        with self._lock:
            self._watched += 1
        self._values.reconsider()
        try:
            yield
        finally:
            with self._lock:
                self._watched -= 1

    def close(self) -> None:
        self._values.close()

    def _seconds(self) -> float:
        return WATCHED_PUT_SECONDS if self._watched else PUT_SECONDS

    def _put(self, gathered: list[tuple[_Series, float]]) -> None:
        values: dict[_Series, Counter[float]] = {}
        for series, value in gathered:
            values.setdefault(series, Counter())[value] += 1
        data = _data(values, datetime.now(UTC))
        try:
            cloudwatch = self._account.ports.client("cloudwatch", None)
            for start in range(0, len(data), MOST_DATA):
                cloudwatch.put_metric_data(Namespace=NAMESPACE, MetricData=data[start : start + MOST_DATA])
        except (BotoCoreError, ClientError) as error:
            logger.warning("%d metrics of endpoints were not put: %s", len(data), error)


def _microseconds(seconds: float) -> float:
    return float(f"{seconds * 1e6:.{LATENCY_DIGITS}g}")


def _data(values: dict[_Series, Counter[float]], when: datetime) -> list[dict[str, Any]]:
    data = []
    for (endpoint, config, variant, metric), counts in values.items():
        whole = [{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": variant}]
        unit = {"Unit": "Microseconds"} if metric.endswith("Latency") else {"Unit": "None"}
        pairs = sorted(counts.items())
        for dimensions in (whole, [*whole, {"Name": "EndpointConfigName", "Value": config}]):
            for start in range(0, len(pairs), MOST_VALUES):
                part = pairs[start : start + MOST_VALUES]
                data.append(
                    {
                        "MetricName": metric,
                        "Dimensions": dimensions,
                        "Timestamp": when,
                        "Values": [float(value) for value, _ in part],
                        "Counts": [float(count) for _, count in part],
                        **unit,
                    }
                )
    return data
