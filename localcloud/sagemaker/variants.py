"""The production variants of an endpoint: a fleet for each, and the shares of the traffic that their weights come to.

https://docs.aws.amazon.com/sagemaker/latest/dg/model-ab-testing.html
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

from localcloud.sagemaker.fleets import Fleet
from localcloud.sagemaker.servers import TERMINATION_GRACE_SECONDS


class Variants:
    """`role_arn`: of the model of the first variant; alarms are read as it."""

    def __init__(self, fleets: Sequence[Fleet]):
        self.fleets = {fleet.deployment.variant_name: fleet for fleet in fleets}
        self.role_arn = fleets[0].deployment.role_arn
        self._weights = {name: fleet.deployment.weight for name, fleet in self.fleets.items()}
        self._owed = dict.fromkeys(self.fleets, 0.0)

    def start(self, closing: threading.Event) -> None:
        """Return when every server of every fleet is healthy. Raises DeploymentFailed, for the first fleet that fails,
        and Closed; end it then, too.
        """
        with ThreadPoolExecutor(len(self.fleets), thread_name_prefix="fleet") as starting:
            starts = [starting.submit(fleet.start, closing) for fleet in self.fleets.values()]
            wait(starts, return_when=FIRST_EXCEPTION)
            failed = next((start for start in starts if start.done() and start.exception() is not None), None)
            if failed is not None:
                self.request_stop()  # what becomes of the other fleets is of no use any more
                failed.result()

    def choose(self, target: str | None = None) -> Fleet:
        """Return the fleet for the next request: that of the target variant, or by weight, so that the shares hold for
        any few requests. Not for several threads at once. Raises KeyError if there is no such variant.
        """
        if target is not None:
            return self.fleets[target]
        total = sum(self._weights.values())
        for name, weight in self._weights.items():
            self._owed[name] += weight / total
        chosen = max(self._owed, key=lambda name: self._owed[name])
        self._owed[chosen] -= 1
        return self.fleets[chosen]

    def scale(self, instance_counts: Mapping[str, int], closing: threading.Event) -> None:
        """Give fleets other numbers of servers, one fleet after the other. Raises as `Fleet.scale`."""
        for name, count in instance_counts.items():
            self.fleets[name].scale(count, closing)

    def weigh(self, weights: Mapping[str, float]) -> None:
        """Give variants other weights; the sum of all must stay above 0."""
        self._weights.update(weights)
        self._owed = dict.fromkeys(self.fleets, 0.0)

    def healthy(self) -> bool:
        """Whether every server of every fleet answers its health check."""
        return all(fleet.healthy() for fleet in self.fleets.values())

    def drain(self) -> None:
        """Return when no request is in flight, or all of them are past their time-out."""
        for fleet in self.fleets.values():
            fleet.drain()

    def request_stop(self, grace_seconds: float = TERMINATION_GRACE_SECONDS) -> None:
        for fleet in self.fleets.values():
            fleet.request_stop(grace_seconds)

    def wait(self, timeout_seconds: float | None = None) -> None:
        for fleet in self.fleets.values():
            fleet.wait(timeout_seconds)

    def remove(self) -> None:
        for fleet in self.fleets.values():
            fleet.remove()
