"""Rollouts: how fleets come into service, take each other's place and go, each change in a thread of its own.

An update starts the new fleet beside the old one (blue/green), moves traffic when the new one is healthy, at once or in
steps, lets the old one finish what it has begun and ends it. If the new fleet does not become healthy, does not stay so
while it bakes, or an alarm rings, the old one has all traffic again: the endpoint is InService, on the old
configuration, without a reason in its description, as on AWS (the log has it). Endpoints that were in service when the
service ended start again with it.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from time import monotonic
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from localcloud.sagemaker.account import Account
from localcloud.sagemaker.auto_scaling import AutoScaling
from localcloud.sagemaker.deployments import Deployment
from localcloud.sagemaker.endpoint_records import KIND, deployments_in, enter, state_change_detail
from localcloud.sagemaker.errors import ServiceError
from localcloud.sagemaker.fleets import Closed, DeploymentFailed, Fleet
from localcloud.sagemaker.guardrails import Plan, Route, alarm_that_rings, plan_of
from localcloud.sagemaker.invocation_metrics import InvocationMetrics
from localcloud.sagemaker.serverless import ServerlessFleet
from localcloud.sagemaker.variants import Variants

logger = logging.getLogger(__name__)

LOG_GROUP = "/aws/sagemaker/Endpoints"
CLOSE_GRACE_SECONDS = 2.0
BAKING_POLL_SECONDS = 0.25
ALARM_POLL_SECONDS = 2.0
CLOSE_TIMEOUT_SECONDS = 10.0
"""Only a launcher that prepares a container takes longer to end; its process is then never started."""


class Rollouts:
    """A change begins with the method that makes it: `begin(rollouts.replace_fleet, name)`, when the endpoint's record
    says what is wanted.
    """

    def __init__(self, account: Account, auto_scaling: AutoScaling, metrics: InvocationMetrics):
        self._account = account
        self._auto_scaling = auto_scaling
        self._metrics = metrics
        self._store = account.store
        self._folder = account.home / "endpoints"
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._in_service: dict[str, Route] = {}
        self._started: set[Variants] = set()
        self._threads: set[threading.Thread] = set()
        self._restore()

    @contextlib.contextmanager
    def in_service(self, name: str, target_variant: str | None = None) -> Iterator[Fleet | None]:
        """Hold the fleet that answers an endpoint's next request, None if none does, so that it outlives this request.

        Raises ServiceError ValidationError, the runtime's code, if there is no such variant.
        """
        with contextlib.ExitStack() as held:
            with self._lock:
                route = self._in_service.get(name)
                fleet = None if route is None else _chosen(route, name, target_variant)
                if fleet is not None:
                    held.enter_context(fleet.request())
            yield fleet

    def begin(self, work: Callable[[str], None], name: str) -> None:
        def run() -> None:
            try:
                work(name)
            except Closed:
                pass
            except Exception:
                logger.exception("endpoint %s", name)
            finally:
                with self._lock:
                    self._threads.discard(thread)

        thread = threading.Thread(target=run, name=f"endpoint {name}", daemon=True)
        with self._lock:
            self._threads.add(thread)
        thread.start()

    def bring_into_service(self, name: str) -> None:
        record = self._store.get(KIND, name)
        assert record is not None
        try:
            variants = self._start(name, deployments_in(record))
        except DeploymentFailed as error:
            self._change(name, "Failed", FailureReason=str(error)[:1024])
        else:
            with self._lock:
                self._in_service[name] = Route(variants)
            self._change(name, "InService")

    def replace_fleet(self, name: str) -> None:
        started = monotonic()
        record = self._store.get(KIND, name)
        assert record is not None
        deployments = deployments_in(record, "PendingDeployments")
        done: dict[str, Any] = {"PendingDeployments": None, "PendingSince": None, "PendingStage": None}
        new = None
        try:
            plan = plan_of(record["LastDeploymentConfig"], deployments[0].instance_count)
            new = self._start(name, deployments)
            with self._metrics.watched():
                previous = self._move_traffic(name, new, plan, started + plan.timeout_seconds)
        except Closed:
            raise
        except Exception as error:
            expected = isinstance(error, DeploymentFailed | ServiceError)
            reason = str(error) if expected else f"InternalServerError: {error!r}"
            old = record["EndpointConfigName"]
            logger.warning("endpoint %s stays on %s: %s", name, old, reason, exc_info=not expected)
            self._change(name, "RollingBack")
            if new is not None:
                with self._lock:
                    self._in_service[name].give(new, 0)
                new.drain()
                self._end(new)
            self._change(name, "InService", **done)
            return
        self._wait(plan.termination_wait_seconds)
        previous.drain()
        self._end(previous)
        done |= {"EndpointConfigName": deployments[0].config_name, "Deployments": record["PendingDeployments"]}
        self._change(name, "InService", **done)

    def adjust(self, name: str) -> None:
        """Bring the variants to the weights and numbers of servers that are wanted; if that fails, they stay."""
        record = self._store.get(KIND, name)
        assert record is not None
        variants, changed = self._in_service[name].variants, deployments_in(record, "WantedDeployments")
        done: dict[str, Any] = {"WantedDeployments": None}
        try:
            variants.scale({one.variant_name: one.instance_count for one in changed}, self._closing)
        except Closed:
            raise
        except Exception as error:
            foreseen = isinstance(error, DeploymentFailed)
            logger.warning("endpoint %s keeps its instances: %s", name, error, exc_info=not foreseen)
        else:
            with self._lock:
                variants.weigh({one.variant_name: one.weight for one in changed})
            done["Deployments"] = record["WantedDeployments"]
        self._change(name, "InService", **done)

    def delete(self, name: str) -> None:
        with self._lock:
            route = self._in_service.pop(name, None)
        if route is not None:
            self._end(route.variants)
        self._forget(name)

    def announce(self, record: Mapping[str, Any]) -> None:
        kind, arn = "SageMaker Endpoint State Change", record["EndpointArn"]
        self._account.announce(kind, arn, lambda tags: state_change_detail(record, tags))

    def close(self) -> None:
        """End every process and thread. The records stay: endpoints in service start again with the next service."""
        with self._lock:
            self._closing.set()
            started, threads = list(self._started), list(self._threads)
            self._in_service.clear()
        for variants in started:
            variants.request_stop(CLOSE_GRACE_SECONDS)
        for variants in started:
            variants.wait(CLOSE_TIMEOUT_SECONDS)
        for thread in threads:
            thread.join(CLOSE_TIMEOUT_SECONDS)

    def _move_traffic(self, name: str, new: Variants, plan: Plan, deadline: float) -> Variants:
        """Give the new variants their shares, one after the other, and return the old ones. Raises DeploymentFailed and
        Closed; then the old ones have all traffic again.
        """
        route = self._in_service[name]
        previous = route.variants
        for share in plan.shares:
            with self._lock:
                route.give(new, share)
            self._enter_stage(name, "Baking")
            try:
                self._bake(new, plan, deadline)
            except Exception:
                with self._lock:
                    route.give(previous, 1)
                raise
        return previous

    def _bake(self, new: Variants, plan: Plan, deadline: float) -> None:
        """Watch the new variants and the alarms for the interval of the plan. Raises DeploymentFailed and Closed."""
        cloudwatch = self._account.ports.client("cloudwatch", new.role_arn) if plan.alarms else None
        over, next_look = monotonic() + plan.wait_seconds, 0.0
        while True:
            now = monotonic()
            if not new.healthy():
                raise DeploymentFailed("the new fleet is not healthy any more")
            if now > deadline:
                raise DeploymentFailed(f"the deployment took more than {plan.timeout_seconds:.0f} seconds")
            if now >= next_look or now >= over:
                next_look = now + ALARM_POLL_SECONDS
                if reason := alarm_that_rings(cloudwatch, plan.alarms):
                    raise DeploymentFailed(reason)
            if now >= over:
                return
            self._wait(min(BAKING_POLL_SECONDS, over - now))

    def _enter_stage(self, name: str, status: str) -> None:
        stage = {"Status": status, "StartTime": datetime.now(UTC)}
        self._store.update(KIND, name, lambda record: record.update(PendingStage=stage))

    def _start(self, name: str, deployments: list[Deployment]) -> Variants:
        """Return variants that are healthy. Raises DeploymentFailed, and then nothing of them is left, and Closed."""
        folder, log_group = self._folder / name, f"{LOG_GROUP}/{name}"
        variants = Variants(
            [
                (ServerlessFleet if one.serverless else Fleet)(self._account, one, folder / one.fleet_id, log_group)
                for one in deployments
            ]
        )
        with self._lock:
            if self._closing.is_set():
                raise Closed
            self._started.add(variants)
        try:
            variants.start(self._closing)
        except Closed:
            raise
        except DeploymentFailed:
            self._end(variants)
            raise
        except Exception as error:
            logger.exception("endpoint %s", name)
            self._end(variants)
            raise DeploymentFailed(f"InternalServerError: {error!r}") from error
        return variants

    def _end(self, variants: Variants) -> None:
        variants.request_stop()
        variants.wait()
        variants.remove()
        with self._lock:
            self._started.discard(variants)

    def _restore(self) -> None:
        """What was in service starts again, what was being created too; an update that was under way is dropped."""
        for record in self._store.list(KIND):
            name, status = record["EndpointName"], record["EndpointStatus"]
            if status == "Deleting":
                self._forget(name)
                continue
            kept = {one.fleet_id for one in deployments_in(record)}
            for folder in self._folder.joinpath(name).glob("*"):
                if folder.name not in kept:
                    shutil.rmtree(folder, ignore_errors=True)
            if status == "Failed":
                continue
            if status != "Creating":
                self._store.update(
                    KIND,
                    name,
                    lambda record: enter(record, "SystemUpdating", PendingDeployments=None, WantedDeployments=None),
                )
            self.begin(self._bring_back, name)

    def _bring_back(self, name: str) -> None:
        """Wait until the cloud around the service answers, as both may have just started, and then start the fleet."""
        while not self._closing.is_set():
            try:
                self._account.ports.client("s3", None).list_buckets()
                break
            except ClientError:
                break
            except BotoCoreError:
                self._closing.wait(0.2)
        if not self._closing.is_set():
            self.bring_into_service(name)

    def _forget(self, name: str) -> None:
        shutil.rmtree(self._folder / name, ignore_errors=True)
        self._account.tags.forget(self._account.arn(f"endpoint/{name}"))
        self._auto_scaling.forget(name)
        self._store.delete(KIND, name)

    def _wait(self, seconds: float) -> None:
        if self._closing.wait(seconds):
            raise Closed

    def _change(self, name: str, status: str, **members: Any) -> None:
        if self._closing.is_set():
            raise Closed
        self.announce(self._store.update(KIND, name, lambda record: enter(record, status, **members)))


def _chosen(route: Route, endpoint_name: str, target_variant: str | None) -> Fleet:
    try:
        return route.next().choose(target_variant)
    except KeyError:
        raise ServiceError(
            "ValidationError", f"Variant {target_variant} not found for endpoint {endpoint_name}."
        ) from None
