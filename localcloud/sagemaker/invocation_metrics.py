"""What endpoints tell CloudWatch of their invocations: the metrics of AWS/SageMaker that alarms watch.

https://docs.aws.amazon.com/sagemaker/latest/dg/monitoring-cloudwatch.html. Each metric has the dimensions EndpointName
and VariantName, and once more with EndpointConfigName beside them: an alarm on that one watches one fleet of an update.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

if TYPE_CHECKING:
    from localcloud.sagemaker.service import SageMaker

logger = logging.getLogger(__name__)

NAMESPACE = "AWS/SageMaker"
PUT_SECONDS = 5.0
"""How long values are gathered until they are put. AWS puts them once a minute."""
MOST_VALUES = 150  # of one datum: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html
MOST_DATA = 500  # of one request; the limits are 1,000 and 1 MB

_Series = tuple[str, str, str, str]  # endpoint, configuration, variant, metric


class InvocationMetrics:
    """Its thread runs only while there is something to put."""

    def __init__(self, service: SageMaker):
        self._service = service
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._values: dict[_Series, Counter[float]] = {}
        self._thread: threading.Thread | None = None

    def record(
        self, endpoint: str, config: str, variant: str, status: int, model_seconds: float, overhead_seconds: float
    ) -> None:
        """Take in one request that a container was asked. status: the container's; 0 if it gave no answer, which is
        counted as a server error.
        """
        values = {
            "Invocations": 1,
            "Invocation4XXErrors": int(400 <= status < 500),
            "Invocation5XXErrors": int(status >= 500 or status == 0),
            "InvocationModelErrors": int(not 200 <= status < 300),
            "ModelLatency": round(model_seconds * 1e6),
            "OverheadLatency": round(overhead_seconds * 1e6),
        }
        with self._lock:
            for metric, value in values.items():
                self._values.setdefault((endpoint, config, variant, metric), Counter())[value] += 1
            if self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._put_later, name="metrics of endpoints", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """Drop what was not put."""
        with self._lock:
            self._closing.set()
            thread = self._thread
        if thread is not None:
            thread.join(PUT_SECONDS)

    def _put_later(self) -> None:
        self._closing.wait(PUT_SECONDS)
        with self._lock:
            values, self._values = self._values, {}
            self._thread = None
        if self._closing.is_set():
            return
        data = _data(values, datetime.now(UTC))
        try:
            cloudwatch = self._service.ports.client("cloudwatch", None)
            for start in range(0, len(data), MOST_DATA):
                cloudwatch.put_metric_data(Namespace=NAMESPACE, MetricData=data[start : start + MOST_DATA])
        except (BotoCoreError, ClientError) as error:
            logger.warning("%d metrics of endpoints were not put: %s", len(data), error)


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
