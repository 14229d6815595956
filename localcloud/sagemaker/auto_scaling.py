"""Application Auto Scaling of production variants: scalable targets, and policies of target tracking that really scale.

    service.auto_scaling.call("RegisterScalableTarget", {...})

Requests are validated by botocore's model of the service; an action that is not in `ACTIONS` is refused by name. Where
AWS makes alarms for a policy, a thread here looks at the metric itself, for as long as there are policies; so policies
have no alarms. https://docs.aws.amazon.com/sagemaker/latest/dg/endpoint-auto-scaling.html
"""

from __future__ import annotations

import logging
import re
import threading
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from localcloud.sagemaker.account import Account
from localcloud.sagemaker.endpoint_records import KIND as ENDPOINT
from localcloud.sagemaker.endpoint_records import deployments_in
from localcloud.sagemaker.errors import ServiceError, unsupported, validation_error
from localcloud.sagemaker.invocation_metrics import NAMESPACE, PER_INSTANCE
from localcloud.sagemaker.listing import list_page
from localcloud.sagemaker.target_tracking import (
    DEFAULT_COOLDOWN_SECONDS,
    SHRINKING_MINUTES,
    Rule,
    wanted_instances,
)
from localcloud.sagemaker.validation import Support, operation, refuse_unsupported, shaped, validate

logger = logging.getLogger(__name__)

SERVICE = "application-autoscaling"
KIND = "scalable-target"
RESOURCE = re.compile(r"endpoint/(?P<endpoint>[^/]+)/variant/(?P<variant>[^/]+)")
LOOK_SECONDS = 5.0
MOST_RESULTS = 50

ACTIONS = {
    "DeleteScalingPolicy": "delete_scaling_policy",
    "DeregisterScalableTarget": "deregister_scalable_target",
    "DescribeScalableTargets": "describe_scalable_targets",
    "DescribeScalingPolicies": "describe_scaling_policies",
    "PutScalingPolicy": "put_scaling_policy",
    "RegisterScalableTarget": "register_scalable_target",
}

_ONLY = {
    "ServiceNamespace": (("sagemaker",), "it scales the production variants of endpoints"),
    "ScalableDimension": (
        ("sagemaker:variant:DesiredInstanceCount",),
        "it scales the production variants of endpoints",
    ),
}
_TRACKING = "TargetTrackingScalingPolicyConfiguration"
TABLES = {
    "RegisterScalableTarget": Support(honoured=frozenset({"ResourceId", "MinCapacity", "MaxCapacity"}), only=_ONLY),
    "DeregisterScalableTarget": Support(honoured=frozenset({"ResourceId"}), only=_ONLY),
    "DescribeScalableTargets": Support(honoured=frozenset({"ResourceIds", "MaxResults", "NextToken"}), only=_ONLY),
    "PutScalingPolicy": Support(
        honoured=frozenset(
            {
                "PolicyName",
                "ResourceId",
                f"{_TRACKING}.TargetValue",
                f"{_TRACKING}.ScaleOutCooldown",
                f"{_TRACKING}.ScaleInCooldown",
                f"{_TRACKING}.DisableScaleIn",
            }
        ),
        only={
            **_ONLY,
            "PolicyType": (("TargetTrackingScaling",), "it tracks a target"),
            f"{_TRACKING}.PredefinedMetricSpecification.PredefinedMetricType": (
                ("SageMakerVariantInvocationsPerInstance",),
                "it is the one metric that it looks at",
            ),
        },
    ),
    "DescribeScalingPolicies": Support(
        honoured=frozenset({"PolicyNames", "ResourceId", "MaxResults", "NextToken"}), only=_ONLY
    ),
    "DeleteScalingPolicy": Support(honoured=frozenset({"PolicyName", "ResourceId"}), only=_ONLY),
}


class AutoScaling:
    """A target's record holds its policies: they go with it."""

    def __init__(self, account: Account, answer: Callable[[str, Mapping[str, Any]], dict[str, Any]]):
        self._account = account
        self._answer = answer
        self._store = account.store
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._watch()

    def call(self, action: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one request. Raises ServiceError."""
        operation(action, SERVICE)
        if action not in ACTIONS:
            raise unsupported(action, f"of {SERVICE} it answers {', '.join(sorted(ACTIONS))}")
        checked = validate(action, parameters, SERVICE)
        refuse_unsupported(action, checked, TABLES[action])
        return shaped(action, getattr(self, ACTIONS[action])(checked) or {}, SERVICE)

    def holds(self, endpoint: str, variant: str) -> bool:
        return self._store.get(KIND, f"endpoint/{endpoint}/variant/{variant}") is not None

    def forget(self, endpoint: str) -> None:
        """Let go of an endpoint that is deleted."""
        for target in self._store.list(KIND):
            if target["ResourceId"].startswith(f"endpoint/{endpoint}/"):
                self._store.delete(KIND, target["ResourceId"])

    def register_scalable_target(self, parameters: dict[str, Any]) -> dict[str, Any]:
        resource = parameters["ResourceId"]
        target = self._store.get(KIND, resource) or {
            **{name: parameters[name] for name in ("ServiceNamespace", "ResourceId", "ScalableDimension")},
            "ScalableTargetARN": self._arn("application-autoscaling", f"scalable-target/{uuid.uuid4().hex}"),
            "RoleARN": f"arn:aws:iam::{self._account.account_id}:role/aws-service-role/"
            "sagemaker.application-autoscaling.amazonaws.com/AWSServiceRoleForApplicationAutoScaling_SageMakerEndpoint",
            "SuspendedState": dict.fromkeys(
                ("DynamicScalingInSuspended", "DynamicScalingOutSuspended", "ScheduledScalingSuspended"), False
            ),
            "CreationTime": datetime.now(UTC),
            "Policies": [],
        }
        target |= {name: parameters[name] for name in ("MinCapacity", "MaxCapacity") if name in parameters}
        if not {"MinCapacity", "MaxCapacity"} <= target.keys():
            raise validation_error("MinCapacity and MaxCapacity are needed to register a scalable target.")
        if not 1 <= target["MinCapacity"] <= target["MaxCapacity"]:
            raise validation_error("MinCapacity must be at least 1, and at most MaxCapacity.")
        self._instances(resource)
        with self._lock:
            if self._store.get(KIND, resource):
                self._store.update(KIND, resource, lambda record: record.update(target))
            else:
                self._store.create(KIND, resource, target)
        return target

    def deregister_scalable_target(self, parameters: dict[str, Any]) -> None:
        self._target(parameters)
        self._store.delete(KIND, parameters["ResourceId"])

    def describe_scalable_targets(self, parameters: dict[str, Any]) -> dict[str, Any]:
        wanted = parameters.get("ResourceIds")
        targets = [one for one in self._store.list(KIND) if wanted is None or one["ResourceId"] in wanted]
        return _page(parameters, targets, "ScalableTargets", "ResourceId")

    def put_scaling_policy(self, parameters: dict[str, Any]) -> dict[str, Any]:
        if _TRACKING not in parameters or "PredefinedMetricSpecification" not in parameters[_TRACKING]:
            raise validation_error(f"{_TRACKING} with a PredefinedMetricSpecification is needed.")
        name, resource = parameters["PolicyName"], parameters["ResourceId"]
        self._target(parameters)
        policy = {
            **parameters,
            "PolicyARN": self._arn(
                "autoscaling", f"scalingPolicy:{uuid.uuid4()}:resource/sagemaker/{resource}:policyName/{name}"
            ),
            "CreationTime": datetime.now(UTC),
            "Alarms": [],
        }

        def put(target: dict[str, Any]) -> None:
            if any(one["PolicyName"] != name for one in target["Policies"]):
                raise unsupported("PutScalingPolicy", f"{resource} has a policy, and it tracks one target")
            target["Policies"] = [policy]

        self._store.update(KIND, resource, put)
        self._watch()
        return policy

    def describe_scaling_policies(self, parameters: dict[str, Any]) -> dict[str, Any]:
        names, resource = parameters.get("PolicyNames"), parameters.get("ResourceId")
        policies = [
            policy
            for target in self._store.list(KIND)
            for policy in target["Policies"]
            if resource in (None, target["ResourceId"]) and (names is None or policy["PolicyName"] in names)
        ]
        return _page(parameters, policies, "ScalingPolicies", "PolicyName")

    def delete_scaling_policy(self, parameters: dict[str, Any]) -> None:
        if not any(one["PolicyName"] == parameters["PolicyName"] for one in self._target(parameters)["Policies"]):
            raise _not_found(f"scaling policy {parameters['PolicyName']}", parameters["ResourceId"])
        self._store.update(KIND, parameters["ResourceId"], lambda target: target.update(Policies=[]))

    def close(self) -> None:
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _target(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        target = self._store.get(KIND, parameters["ResourceId"])
        if target is None:
            raise _not_found("scalable target", parameters["ResourceId"])
        return target

    def _instances(self, resource: str) -> int:
        """Return how many instances a variant has. Raises ServiceError ValidationException if it has none to scale."""
        named = RESOURCE.fullmatch(resource)
        record = self._store.get(ENDPOINT, named["endpoint"]) if named else None
        for one in deployments_in(record) if record else ():
            if named and one.variant_name == named["variant"] and not one.serverless:
                return one.instance_count
        raise validation_error(f"There is no production variant {resource} that has instances of its own.")

    def _arn(self, service: str, resource: str) -> str:
        return f"arn:aws:{service}:{self._account.region}:{self._account.account_id}:{resource}"

    def _watch(self) -> None:
        """Look after the policies in a thread, unless one does already or there are none."""
        with self._lock:
            if self._thread is None and any(target["Policies"] for target in self._store.list(KIND)):
                self._thread = threading.Thread(target=self._look_regularly, name="auto scaling", daemon=True)
                self._thread.start()

    def _look_regularly(self) -> None:
        while not self._closing.wait(LOOK_SECONDS):
            with self._lock:
                tracked = [target for target in self._store.list(KIND) if target["Policies"]]
                if not tracked:
                    self._thread = None
                    return
            for target in tracked:
                try:
                    self._scale(target)
                except (ServiceError, BotoCoreError, ClientError, KeyError) as error:
                    logger.warning("%s was not scaled: %s", target["ResourceId"], error)

    def _scale(self, target: dict[str, Any]) -> None:
        """Give a variant as many instances as its load asks for, if its endpoint can be changed."""
        resource, now = target["ResourceId"], datetime.now(UTC)
        named = RESOURCE.fullmatch(resource)
        record = self._store.get(ENDPOINT, named["endpoint"]) if named else None
        if named is None or record is None or record["EndpointStatus"] != "InService":
            return
        instances = self._instances(resource)
        minutes = self._invocations_per_instance(named["endpoint"], named["variant"], now)
        wanted = wanted_instances(instances, minutes, _rule(target, now))
        if wanted == instances:
            return
        change = {"VariantName": named["variant"], "DesiredInstanceCount": wanted}
        self._answer(
            "UpdateEndpointWeightsAndCapacities",
            {"EndpointName": named["endpoint"], "DesiredWeightsAndCapacities": [change]},
        )
        logger.warning("%s is scaled from %d to %d instances", resource, instances, wanted)
        scaled = "ScaledOut" if wanted > instances else "ScaledIn"
        self._store.update(KIND, resource, lambda record: record.update({scaled: now}))

    def _invocations_per_instance(self, endpoint: str, variant: str, now: datetime) -> list[float]:
        """Return the sums of the last whole minutes, the newest last: 0 where there was no request."""
        end = now.replace(second=0, microsecond=0)
        start = end - timedelta(minutes=SHRINKING_MINUTES)
        points = self._account.ports.client("cloudwatch", None).get_metric_statistics(
            Namespace=NAMESPACE,
            MetricName=PER_INSTANCE,
            Dimensions=[{"Name": "EndpointName", "Value": endpoint}, {"Name": "VariantName", "Value": variant}],
            StartTime=start,
            EndTime=end,
            Period=60,
            Statistics=["Sum"],
        )["Datapoints"]
        minutes = [0.0] * SHRINKING_MINUTES
        for point in points:
            minutes[int((point["Timestamp"] - start).total_seconds() // 60)] = point["Sum"]
        return minutes


def _rule(target: Mapping[str, Any], now: datetime) -> Rule:
    (policy,) = target["Policies"]
    tracking = policy[_TRACKING]

    def since(member: str) -> float:
        return (now - target[member]).total_seconds() if member in target else float("inf")

    settled = now - policy["CreationTime"] >= timedelta(minutes=SHRINKING_MINUTES)
    in_cooldown = tracking.get("ScaleInCooldown", DEFAULT_COOLDOWN_SECONDS)
    return Rule(
        least=target["MinCapacity"],
        most=target["MaxCapacity"],
        target_value=tracking["TargetValue"],
        may_grow=since("ScaledOut") >= tracking.get("ScaleOutCooldown", DEFAULT_COOLDOWN_SECONDS),
        may_shrink=settled
        and not tracking.get("DisableScaleIn")
        and min(since("ScaledIn"), since("ScaledOut")) >= in_cooldown,
    )


def _page(parameters: Mapping[str, Any], records: list[dict[str, Any]], result: str, name: str) -> dict[str, Any]:
    return list_page({"MaxResults": MOST_RESULTS, **parameters}, records, result=result, name=name)


def _not_found(what: str, resource: str) -> ServiceError:
    return ServiceError("ObjectNotFoundException", f"No {what} found for resource ID: {resource}")
