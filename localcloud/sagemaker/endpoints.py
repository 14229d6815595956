"""Endpoints: which fleet is in service, and how another takes its place.

Creating and updating run in a thread of their own. An update starts the new fleet beside the old one (blue/green),
moves traffic when the new one is healthy, at once or in steps, lets the old one finish what it has begun and ends it.
If the new fleet does not become healthy, does not stay so while it bakes, or an alarm rings, the old one has all
traffic again: the endpoint is InService, on the old configuration, without a reason in its description, as on AWS (the
log has it). Endpoints that were in service when the service ended start again with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from localcloud.sagemaker.deployments import Deployment, deployment_of
from localcloud.sagemaker.errors import ServiceError, validation_error
from localcloud.sagemaker.fleets import Closed, DeploymentFailed, Fleet
from localcloud.sagemaker.guardrails import Plan, Route, alarm_that_rings, missing_alarms, plan_of
from localcloud.sagemaker.listing import list_page
from localcloud.sagemaker.store import RecordExists
from localcloud.sagemaker.validation import Support, refuse_unsupported

if TYPE_CHECKING:
    from localcloud.sagemaker.service import SageMaker

logger = logging.getLogger(__name__)

KIND = "endpoint"
LOG_GROUP = "/aws/sagemaker/Endpoints"
CLOSE_GRACE_SECONDS = 2.0
BAKING_POLL_SECONDS = 0.25
ALARM_POLL_SECONDS = 2.0
CLOSE_TIMEOUT_SECONDS = 10.0
"""Only a launcher that prepares a container takes longer to end; its process is then never started."""

_DEPLOYMENT_HONOURED = {"DeploymentConfig.BlueGreenUpdatePolicy", "DeploymentConfig.AutoRollbackConfiguration"}
CREATE_SUPPORT = Support(
    honoured=frozenset({"EndpointName", "EndpointConfigName", "Tags", *_DEPLOYMENT_HONOURED}),
)
UPDATE_SUPPORT = Support(
    honoured=frozenset(
        {
            "EndpointName",
            "EndpointConfigName",
            "RetainAllVariantProperties",
            "ExcludeRetainedVariantProperties",
            "RetainDeploymentConfig",
            *_DEPLOYMENT_HONOURED,
        }
    ),
)


class Endpoints:
    def __init__(self, service: SageMaker):
        self._service = service
        self._store = service.store
        self._folder = service.home / "endpoints"
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._in_service: dict[str, Route] = {}
        self._fleets: set[Fleet] = set()
        self._threads: set[threading.Thread] = set()
        self._restore()

    def create_endpoint(self, parameters: dict[str, Any]) -> dict[str, Any]:
        refuse_unsupported("CreateEndpoint", parameters, CREATE_SUPPORT)
        name = parameters["EndpointName"]
        deployment = self._deployment(parameters["EndpointConfigName"])
        self._check_plan(parameters.get("DeploymentConfig"), deployment)
        arn = self._service.arn(f"endpoint/{name}")
        now = datetime.now(UTC)
        record = {
            "EndpointName": name,
            "EndpointArn": arn,
            "EndpointConfigName": deployment.config_name,
            "EndpointStatus": "Creating",
            "CreationTime": now,
            "LastModifiedTime": now,
            "Deployment": dataclasses.asdict(deployment),
            "LastDeploymentConfig": parameters.get("DeploymentConfig"),
        }
        try:
            self._store.create(KIND, name, record)
        except RecordExists:
            raise validation_error(f'Cannot create already existing endpoint "{arn}".') from None
        self._service.tags.register(arn, parameters.get("Tags"))
        self._announce(record)
        self._begin(self._bring_into_service, name)
        return {"EndpointArn": arn}

    def update_endpoint(self, parameters: dict[str, Any]) -> dict[str, Any]:
        refuse_unsupported("UpdateEndpoint", parameters, UPDATE_SUPPORT)
        name = parameters["EndpointName"]
        current = self.describe_endpoint(parameters)
        arn = current["EndpointArn"]
        deployment = self._deployment(parameters["EndpointConfigName"])
        if parameters.get("RetainAllVariantProperties"):
            excluded = {one["VariantPropertyType"] for one in parameters.get("ExcludeRetainedVariantProperties", [])}
            deployment = _retaining(deployment, Deployment(**current["Deployment"]), excluded)
        retained = current.get("LastDeploymentConfig") if parameters.get("RetainDeploymentConfig") else None
        config = parameters.get("DeploymentConfig", retained)
        self._check_plan(config, deployment)

        def change(record: dict[str, Any]) -> None:
            _check_status(record, "update", "InService")
            if config is not None and record["Deployment"]["variant_name"] != deployment.variant_name:
                raise validation_error(
                    f"With a DeploymentConfig the variant's name must stay {record['Deployment']['variant_name']!r}; "
                    f"the configuration {deployment.config_name!r} calls it {deployment.variant_name!r}."
                )
            record["LastDeploymentConfig"] = config
            record["PendingDeployment"] = dataclasses.asdict(deployment)
            record["PendingStage"] = {"Status": "Creating", "StartTime": datetime.now(UTC)}
            _enter(record, "Updating")
            record["PendingSince"] = record["LastModifiedTime"]

        self._announce(self._store.update(KIND, name, change))
        self._begin(self._replace_fleet, name)
        return {"EndpointArn": arn}

    def delete_endpoint(self, parameters: dict[str, Any]) -> dict[str, Any]:
        name = parameters["EndpointName"]
        self.describe_endpoint(parameters)

        def change(record: dict[str, Any]) -> None:
            _check_status(record, "delete", "InService", "Failed")
            _enter(record, "Deleting")

        self._announce(self._store.update(KIND, name, change))
        self._begin(self._delete, name)
        return {}

    def describe_endpoint(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        record = self._store.get(KIND, parameters["EndpointName"])
        if record is None:
            arn = self._service.arn(f"endpoint/{parameters['EndpointName']}")
            raise validation_error(f'Could not find endpoint "{arn}".')
        status = record["EndpointStatus"]
        serves = status in ("InService", "Updating", "RollingBack")
        pending = record.get("PendingDeployment")
        if status != "Failed":
            record["ProductionVariants"] = [_variant(record["Deployment"], serves, record["CreationTime"])]
        if pending is not None:
            record["PendingDeploymentSummary"] = {
                "EndpointConfigName": pending["config_name"],
                "ProductionVariants": [
                    {
                        **_variant(pending, False, record["PendingSince"]),
                        "VariantStatus": [record["PendingStage"]],
                    }
                ],
                "StartTime": record["PendingSince"],
            }
        return record

    def list_endpoints(self, parameters: dict[str, Any]) -> dict[str, Any]:
        return list_page(
            parameters,
            self._store.list(KIND),
            result="Endpoints",
            name="EndpointName",
            status="EndpointStatus",
            sort_order="Descending",
        )

    @contextlib.contextmanager
    def in_service(self, name: str) -> Iterator[Fleet | None]:
        """Hold the fleet that answers an endpoint's requests, None if none does, so that it outlives this request."""
        with contextlib.ExitStack() as held:
            with self._lock:
                route = self._in_service.get(name)
                fleet = None if route is None else route.next()
                if fleet is not None:
                    held.enter_context(fleet.request())
            yield fleet

    def close(self) -> None:
        """End every process and thread. The records stay: endpoints in service start again with the next service."""
        with self._lock:
            self._closing.set()
            fleets, threads = list(self._fleets), list(self._threads)
            self._in_service.clear()
        for fleet in fleets:
            fleet.request_stop(CLOSE_GRACE_SECONDS)
        for fleet in fleets:
            fleet.wait(CLOSE_TIMEOUT_SECONDS)
        for thread in threads:
            thread.join(CLOSE_TIMEOUT_SECONDS)

    def _bring_into_service(self, name: str) -> None:
        record = self._store.get(KIND, name)
        assert record is not None
        try:
            fleet = self._start_fleet(name, Deployment(**record["Deployment"]))
        except DeploymentFailed as error:
            self._change(name, "Failed", FailureReason=str(error)[:1024])
        else:
            with self._lock:
                self._in_service[name] = Route(fleet)
            self._change(name, "InService")

    def _replace_fleet(self, name: str) -> None:
        started = monotonic()
        record = self._store.get(KIND, name)
        assert record is not None
        new = Deployment(**record["PendingDeployment"])
        done: dict[str, Any] = {"PendingDeployment": None, "PendingSince": None, "PendingStage": None}
        fleet = None
        try:
            plan = plan_of(record["LastDeploymentConfig"], new.instance_count)
            fleet = self._start_fleet(name, new)
            with self._service.invocation_metrics.watched():
                previous = self._move_traffic(name, fleet, plan, started + plan.timeout_seconds)
        except Closed:
            raise
        except Exception as error:
            expected = isinstance(error, DeploymentFailed | ServiceError)
            reason = str(error) if expected else f"InternalServerError: {error!r}"
            old = record["EndpointConfigName"]
            logger.warning("endpoint %s stays on %s: %s", name, old, reason, exc_info=not expected)
            self._change(name, "RollingBack")
            if fleet is not None:
                with self._lock:
                    self._in_service[name].give(fleet, 0)
                fleet.drain()
                self._end(fleet)
            self._change(name, "InService", **done)
            return
        self._wait(plan.termination_wait_seconds)
        previous.drain()
        self._end(previous)
        done |= {"EndpointConfigName": new.config_name, "Deployment": record["PendingDeployment"]}
        self._change(name, "InService", **done)

    def _move_traffic(self, name: str, fleet: Fleet, plan: Plan, deadline: float) -> Fleet:
        """Give the new fleet its shares, one after the other, and return the old one. Raises DeploymentFailed and
        Closed; then the old one has all traffic again.
        """
        route = self._in_service[name]
        previous = route.fleet
        for share in plan.shares:
            with self._lock:
                route.give(fleet, share)
            self._enter_stage(name, "Baking")
            try:
                self._bake(fleet, plan, deadline)
            except Exception:
                with self._lock:
                    route.give(previous, 1)
                raise
        return previous

    def _bake(self, fleet: Fleet, plan: Plan, deadline: float) -> None:
        """Watch the new fleet and the alarms for the interval of the plan. Raises DeploymentFailed and Closed."""
        cloudwatch = self._service.ports.client("cloudwatch", fleet.deployment.role_arn) if plan.alarms else None
        over, next_look = monotonic() + plan.wait_seconds, 0.0
        while True:
            now = monotonic()
            if not fleet.healthy():
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

    def _delete(self, name: str) -> None:
        with self._lock:
            route = self._in_service.pop(name, None)
        if route is not None:
            self._end(route.fleet)
        self._forget(name)

    def _forget(self, name: str) -> None:
        shutil.rmtree(self._folder / name, ignore_errors=True)
        self._service.tags.forget(self._service.arn(f"endpoint/{name}"))
        self._store.delete(KIND, name)

    def _restore(self) -> None:
        """What was in service starts again, what was being created too; an update that was under way is dropped."""
        for record in self._store.list(KIND):
            name, status = record["EndpointName"], record["EndpointStatus"]
            if status == "Deleting":
                self._forget(name)
                continue
            for folder in self._folder.joinpath(name).glob("*"):
                if folder.name != record["Deployment"]["fleet_id"]:
                    shutil.rmtree(folder, ignore_errors=True)
            if status == "Failed":
                continue
            if status != "Creating":
                self._store.update(KIND, name, lambda record: _enter(record, "SystemUpdating", PendingDeployment=None))
            self._begin(self._bring_back, name)

    def _bring_back(self, name: str) -> None:
        """Wait until the cloud around the service answers, as both may have just started, and then start the fleet."""
        while not self._closing.is_set():
            try:
                self._service.ports.client("s3", None).list_buckets()
                break
            except ClientError:
                break
            except BotoCoreError:
                self._closing.wait(0.2)
        if not self._closing.is_set():
            self._bring_into_service(name)

    def _deployment(self, config_name: str) -> Deployment:
        config = self._service.endpoint_configs.get(config_name)
        return deployment_of(config, self._service.models.get(config["ProductionVariants"][0]["ModelName"]))

    def _check_plan(self, config: Mapping[str, Any] | None, deployment: Deployment) -> None:
        """Raises ServiceError: a DeploymentConfig that contradicts itself, alarms that are not there or not readable.

        The alarms are read as the role of the model, as AWS does: not to be called in a thread that serves CloudWatch.
        """
        alarms = plan_of(config, deployment.instance_count).alarms
        if not alarms:
            return
        try:
            missing = missing_alarms(self._service.ports.client("cloudwatch", deployment.role_arn), alarms)
        except ClientError as error:
            raise validation_error(
                f"Could not describe the alarms {', '.join(alarms)}. Please ensure that the role "
                f'"{deployment.role_arn}" has "cloudwatch:DescribeAlarms" permissions on them. ({error})'
            ) from error
        if missing:
            raise validation_error(f"AutoRollbackConfiguration names alarms that do not exist: {', '.join(missing)}.")

    def _start_fleet(self, name: str, deployment: Deployment) -> Fleet:
        """Return a fleet that is healthy. Raises DeploymentFailed, and then nothing of it is left, and Closed."""
        fleet = Fleet(self._service, deployment, self._folder / name / deployment.fleet_id, f"{LOG_GROUP}/{name}")
        with self._lock:
            if self._closing.is_set():
                raise Closed
            self._fleets.add(fleet)
        try:
            fleet.start(self._closing)
        except Closed:
            raise
        except DeploymentFailed:
            self._end(fleet)
            raise
        except Exception as error:
            logger.exception("endpoint %s", name)
            self._end(fleet)
            raise DeploymentFailed(f"InternalServerError: {error!r}") from error
        return fleet

    def _end(self, fleet: Fleet) -> None:
        fleet.request_stop()
        fleet.wait()
        fleet.remove()
        with self._lock:
            self._fleets.discard(fleet)

    def _wait(self, seconds: float) -> None:
        if self._closing.wait(seconds):
            raise Closed

    def _begin(self, work: Callable[[str], None], name: str) -> None:
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

    def _change(self, name: str, status: str, **members: Any) -> None:
        if self._closing.is_set():
            raise Closed
        self._announce(self._store.update(KIND, name, lambda record: _enter(record, status, **members)))

    def _announce(self, record: Mapping[str, Any]) -> None:
        try:
            tags = self._service.tags.of(record["EndpointArn"])
            self._service.ports.publish_event(
                "SageMaker Endpoint State Change", state_change_detail(record, tags), [record["EndpointArn"]]
            )
        except Exception:
            logger.exception("no event for %s", record["EndpointArn"])


def state_change_detail(record: Mapping[str, Any], tags: list[dict[str, str]]) -> dict[str, Any]:
    """The event's detail; here, unlike in the API, AWS writes statuses as IN_SERVICE.

    https://docs.aws.amazon.com/sagemaker/latest/dg/automating-sagemaker-with-eventbridge.html"""
    deployment = record["Deployment"]
    detail = {
        "EndpointName": record["EndpointName"],
        "EndpointArn": record["EndpointArn"],
        "EndpointConfigName": record["EndpointConfigName"],
        "ProductionVariants": [
            {
                "VariantName": deployment["variant_name"],
                "DesiredWeight": deployment["weight"],
                "DesiredInstanceCount": deployment["instance_count"],
            }
        ],
        "EndpointStatus": re.sub(r"(?<=[a-z])(?=[A-Z])", "_", record["EndpointStatus"]).upper(),
        "CreationTime": int(record["CreationTime"].timestamp() * 1000),
        "LastModifiedTime": int(record["LastModifiedTime"].timestamp() * 1000),
        "Tags": {tag["Key"]: tag["Value"] for tag in tags},
    }
    return detail | ({"FailureReason": record["FailureReason"]} if record.get("FailureReason") else {})


def _enter(record: dict[str, Any], status: str, **members: Any) -> None:
    record.update(EndpointStatus=status, LastModifiedTime=datetime.now(UTC), **members)


def _retaining(deployment: Deployment, current: Deployment, excluded: set[str]) -> Deployment:
    """A deployment with the properties that the variant of the same name has now. excluded: VariantPropertyTypes."""
    if deployment.variant_name != current.variant_name:
        return deployment
    properties = {"DesiredInstanceCount": "instance_count", "DesiredWeight": "weight"}
    kept = {member: getattr(current, member) for kind, member in properties.items() if kind not in excluded}
    return dataclasses.replace(deployment, **kept)


def _check_status(record: Mapping[str, Any], verb: str, *allowed: str) -> None:
    status, arn = record["EndpointStatus"], record["EndpointArn"]
    if status == "Failed" and status not in allowed:
        raise validation_error(f'Cannot {verb} endpoint "{arn}" in status Failed: it can only be deleted.')
    if status not in allowed:
        raise validation_error(f'Cannot update in-progress endpoint "{arn}".')  # AWS's words for a deletion, too


def _variant(deployment: Mapping[str, Any], serves: bool, resolved: datetime) -> dict[str, Any]:
    count, weight = deployment["instance_count"], deployment["weight"]
    return {
        "VariantName": deployment["variant_name"],
        "DeployedImages": [
            {
                "SpecifiedImage": deployment["image"],
                "ResolvedImage": deployment["image"],
                "ResolutionTime": resolved,
            }
        ],
        "CurrentWeight": weight if serves else 0.0,
        "DesiredWeight": weight,
        "CurrentInstanceCount": count if serves else 0,
        "DesiredInstanceCount": count,
    }
