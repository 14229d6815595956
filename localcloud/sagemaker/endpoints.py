"""Endpoints: which fleet is in service, and how another takes its place.

Creating and updating run in a thread of their own. An update starts the new fleet beside the old one (blue/green),
moves all traffic at once when the new one is healthy, lets the old one finish what it has begun and ends it. If the new
fleet does not become healthy, the old one stays: the endpoint is InService again, on the old configuration, without a
reason in its description, as on AWS. Endpoints that were in service when the service ended start again with it.
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
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from localcloud.sagemaker.errors import validation_error
from localcloud.sagemaker.fleets import Closed, Deployment, DeploymentFailed, Fleet, deployment_of
from localcloud.sagemaker.listing import list_page
from localcloud.sagemaker.store import RecordExists
from localcloud.sagemaker.validation import Support, refuse_unsupported

if TYPE_CHECKING:
    from localcloud.sagemaker.service import SageMaker

logger = logging.getLogger(__name__)

KIND = "endpoint"
LOG_GROUP = "/aws/sagemaker/Endpoints"
CLOSE_GRACE_SECONDS = 2.0
CLOSE_TIMEOUT_SECONDS = 10.0
"""Only a launcher that prepares a container takes longer to end; its process is then never started."""

_ROUTING = "DeploymentConfig.BlueGreenUpdatePolicy.TrafficRoutingConfiguration"
_DEPLOYMENT_HONOURED = {
    f"{_ROUTING}.WaitIntervalInSeconds",
    "DeploymentConfig.BlueGreenUpdatePolicy.TerminationWaitInSeconds",
}
_DEPLOYMENT_ONLY = {f"{_ROUTING}.Type": (("ALL_AT_ONCE",), "traffic moves all at once")}
_DEPLOYMENT_IGNORED = {
    "DeploymentConfig.BlueGreenUpdatePolicy.MaximumExecutionTimeoutInSeconds": "the container's start-up time-out holds"
}
CREATE_SUPPORT = Support(
    honoured=frozenset({"EndpointName", "EndpointConfigName", "Tags", *_DEPLOYMENT_HONOURED}),
    only=_DEPLOYMENT_ONLY,
    ignored=_DEPLOYMENT_IGNORED,
)
UPDATE_SUPPORT = Support(
    honoured=frozenset({"EndpointName", "EndpointConfigName", "RetainDeploymentConfig", *_DEPLOYMENT_HONOURED}),
    only={
        "RetainAllVariantProperties": ((False,), "capacity is that of the configuration; nothing scales"),
        **_DEPLOYMENT_ONLY,
    },
    ignored=_DEPLOYMENT_IGNORED,
)


class Endpoints:
    def __init__(self, service: SageMaker):
        self._service = service
        self._store = service.store
        self._folder = service.home / "endpoints"
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._in_service: dict[str, Fleet] = {}
        self._fleets: set[Fleet] = set()
        self._threads: set[threading.Thread] = set()
        self._restore()

    def create_endpoint(self, parameters: dict[str, Any]) -> dict[str, Any]:
        refuse_unsupported("CreateEndpoint", parameters, CREATE_SUPPORT)
        name = parameters["EndpointName"]
        deployment = self._deployment(parameters["EndpointConfigName"])
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
        arn = self.describe_endpoint(parameters)["EndpointArn"]
        deployment = self._deployment(parameters["EndpointConfigName"])

        def change(record: dict[str, Any]) -> None:
            _check_status(record, "update", "InService")
            config = parameters.get("DeploymentConfig")
            if config is None and parameters.get("RetainDeploymentConfig"):
                config = record["LastDeploymentConfig"]
            elif config is not None and record["Deployment"]["variant_name"] != deployment.variant_name:
                raise validation_error(
                    f"With a DeploymentConfig the variant's name must stay {record['Deployment']['variant_name']!r}; "
                    f"the configuration {deployment.config_name!r} calls it {deployment.variant_name!r}."
                )
            record["LastDeploymentConfig"] = config
            record["PendingDeployment"] = dataclasses.asdict(deployment)
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
                "ProductionVariants": [_variant(pending, False, record["PendingSince"])],
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
                fleet = self._in_service.get(name)
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
            self._take_over(name, fleet)
            self._change(name, "InService")

    def _replace_fleet(self, name: str) -> None:
        record = self._store.get(KIND, name)
        assert record is not None
        done: dict[str, Any] = {"PendingDeployment": None, "PendingSince": None}
        try:
            fleet = self._start_fleet(name, Deployment(**record["PendingDeployment"]))
        except DeploymentFailed as error:
            logger.warning("endpoint %s stays on %s: %s", name, record["EndpointConfigName"], error)
            self._change(name, "RollingBack")
            self._change(name, "InService", **done)
            return
        previous = self._take_over(name, fleet)
        policy = (record["LastDeploymentConfig"] or {}).get("BlueGreenUpdatePolicy", {})
        self._wait(policy.get("TrafficRoutingConfiguration", {}).get("WaitIntervalInSeconds", 0))
        self._wait(policy.get("TerminationWaitInSeconds", 0))
        if previous is not None:
            previous.drain()
            self._end(previous)
        done |= {"EndpointConfigName": fleet.deployment.config_name, "Deployment": record["PendingDeployment"]}
        self._change(name, "InService", **done)

    def _delete(self, name: str) -> None:
        with self._lock:
            fleet = self._in_service.pop(name, None)
        if fleet is not None:
            self._end(fleet)
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

    def _take_over(self, name: str, fleet: Fleet) -> Fleet | None:
        """Move all traffic to a fleet; return the one that had it."""
        with self._lock:
            previous = self._in_service.get(name)
            self._in_service[name] = fleet
            return previous

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
