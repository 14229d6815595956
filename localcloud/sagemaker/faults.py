"""Faults on demand: what now and then goes wrong on AWS, made to happen here, as often as a test asks for.

    service.faults.add({"Fault": "Throttling", "Action": "CreateTrainingJob", "Times": 3})

There is none until one is added, and none is left after a restart. Of several faults that fit, the oldest happens.
`FIELDS` says what each kind takes beside `Times` (how often; 1 if not given, null for as long as it is there) and
`Name` (a pattern of resource names, such as `run-*`; all if not given).
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from localcloud.sagemaker import debugger
from localcloud.sagemaker.errors import ServiceError, resource_limit_exceeded, validation_error
from localcloud.sagemaker.validation import operation

INVOKE_ENDPOINT = "InvokeEndpoint"
INVOKE_FUNCTION = "Invoke"
"""Lambda's, by a state machine."""
CHOICES = {"Reply": ("Error", "Closed"), "Status": ("ABORTED", "FAILED", "TIMED_OUT")}
POLL_SECONDS = 0.05
STOP_GRACE_SECONDS = 120.0  # between the notice of a spot interruption and its end, as on AWS

FIELDS: dict[str, dict[str, Any]] = {
    "Throttling": {"Action": None, "PerSecond": None},
    "ResourceLimitExceeded": {"Action": None},
    "ClosedToDebugger": {},
    "LostReply": {"Action": None, "Reply": "Error"},
    "InsufficientCapacity": {},
    "StartDelay": {"Seconds": 5.0},
    "SpotInterruption": {"AfterSeconds": 0.0, "GraceSeconds": STOP_GRACE_SECONDS, "WaitSeconds": 0.0},
    "FailingHealth": {},
    "SlowHealth": {"Seconds": 5.0},
    "ExecutionEnds": {"State": None, "Status": "ABORTED"},
}
"""Kind of fault to its own fields and their defaults. None: no default, for Action every one.

- Throttling: the request is refused; with PerSecond, only what exceeds that rate.
- ResourceLimitExceeded: the request is refused; for actions that can be refused so.
- ClosedToDebugger: the account is one that is closed to the Debugger: a training job that asks for it is refused, until
  the fault is removed.
- LostReply: the request is carried out, but its reply does not arrive: Error is a status 500, Closed a connection that
  ends after the headers. With the Action Invoke, it is a state machine that gets no reply of a function, by its name.
- InsufficientCapacity: a training job or a new fleet of an endpoint fails with AWS's reason.
- StartDelay: a training job or a new fleet of an endpoint waits before anything of it starts, at most until the faults
  are cleared.
- SpotInterruption: a job of managed spot training that has run for AfterSeconds gets SIGTERM, SIGKILL GraceSeconds
  later, and starts again from its checkpoints WaitSeconds after that.
- FailingHealth, SlowHealth: a health check of an endpoint's container (each counts) gets a 500, or an answer that is
  late by Seconds.
- ExecutionEnds: an execution of Step Functions ends as Status says when what the State does is done, before the next
  begins; no Catch runs.
"""


@dataclass
class Fault:
    """One that was added. `remaining` is None while there is no end to it."""

    fault_id: str
    kind: str
    name: str
    remaining: int | None
    options: Mapping[str, Any]
    happened: int = 0
    admitted: deque[float] = field(default_factory=deque)

    def description(self) -> dict[str, Any]:
        times = {"Times": self.remaining, "Happened": self.happened}
        return {"FaultId": self.fault_id, "Fault": self.kind, "Name": self.name, **times, **self.options}


class Faults:
    """Which faults there are. Any thread may call any method."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._clearings = 0

    def add(self, document: object) -> dict[str, Any]:
        """Return the fault as `list` tells it. Raises ServiceError ValidationException, naming the key."""
        fault = _parsed(document)
        with self._lock:
            self._faults.append(fault)
            return fault.description()

    def list(self) -> list[dict[str, Any]]:
        """Every fault that can still happen; Times is how often."""
        with self._lock:
            return [fault.description() for fault in self._faults]

    def clear(self) -> None:
        """Remove every fault, and let go on what one of them delays."""
        with self._lock:
            self._faults.clear()
            self._clearings += 1

    def delay(self, seconds: float, over: threading.Event) -> bool:
        """Return whether `over` is set after so many seconds; sooner if it is, or once the faults are cleared."""
        deadline, clearings = time.monotonic() + seconds, self._clearings
        while self._clearings == clearings and (left := deadline - time.monotonic()) > 0:
            if over.wait(min(left, POLL_SECONDS)):
                break
        return over.is_set()

    def take(self, kind: str, name: str, fits: Callable[[Mapping[str, Any]], bool] = lambda _: True) -> Fault | None:
        """Return the fault that now happens to a resource, and count it; None if there is none."""
        with self._lock:
            for fault in self._faults:
                if fault.kind == kind and fnmatchcase(name, fault.name) and fits(fault.options):
                    if kind == "Throttling" and _admitted(fault):
                        continue
                    self._count(fault)
                    return fault
        return None

    def before(self, action: str, parameters: Mapping[str, Any]) -> None:
        """Raise the ServiceError with which a request is refused, if it is."""
        name = _resource_name(action, parameters)
        if self.take("Throttling", name, _of(action)):
            raise ServiceError("ThrottlingException", "Rate exceeded")
        members = debugger.asked_for(parameters) if action == "CreateTrainingJob" else []
        if members and self.take("ClosedToDebugger", name):
            raise validation_error(debugger.CLOSED.format(members=", ".join(members)))
        if _can_exceed_limits(action) and self.take("ResourceLimitExceeded", name, _of(action)):
            resources = parameters.get("ResourceConfig") or {}
            kind = resources.get("InstanceType", "ml.m5.large")
            count = resources.get("InstanceCount", 1)
            raise resource_limit_exceeded(
                f"The account-level service limit '{kind} for {_usage(action)} usage' is 0 Instances, with current "
                f"utilization of 0 Instances and a request delta of {count} Instances. Please use AWS Service Quotas "
                "to request an increase for this quota. If AWS Service Quotas is not available, contact AWS support to "
                "request an increase for this quota."
            )

    def after(self, action: str, parameters: Mapping[str, Any]) -> None:
        """Raise LostReply, if the reply to a request that was carried out is lost."""
        if fault := self.take("LostReply", _resource_name(action, parameters), _of(action)):
            raise LostReply(fault.options["Reply"] == "Closed")

    def loses_reply_of(self, function: str) -> bool:
        """Whether a state machine gets no reply of a function that has run."""
        return self.take("LostReply", function, lambda options: options["Action"] == INVOKE_FUNCTION) is not None

    def _count(self, fault: Fault) -> None:
        fault.happened += 1
        if fault.remaining is not None:
            fault.remaining -= 1
            if fault.remaining == 0:
                self._faults.remove(fault)


class LostReply(ServiceError):
    """The action was done; `closed` says that the connection is to end without a reply."""

    def __init__(self, closed: bool):
        super().__init__("InternalFailure", "We encountered an internal error. Please try again.", 500)
        self.closed = closed


def _parsed(document: object) -> Fault:
    if not isinstance(document, Mapping):
        raise validation_error(f"A fault is a JSON object with the key Fault, one of {', '.join(FIELDS)}")
    kind = document.get("Fault")
    if kind not in FIELDS:
        raise validation_error(f"Fault is {kind!r}; it must be one of {', '.join(FIELDS)}")
    known = {"Fault", "Name", "Times", *FIELDS[kind]}
    for key in document:
        if key not in known:
            raise validation_error(f"{key} is not known for the fault {kind}, which takes {', '.join(sorted(known))}")
    options = {**FIELDS[kind], **{key: document[key] for key in FIELDS[kind] if key in document}}
    for key, value in options.items():
        if key in CHOICES:
            if value not in CHOICES[key]:
                raise validation_error(f"{key} is {value!r}; it must be one of {', '.join(CHOICES[key])}")
        elif key == "State":
            if value is not None and not isinstance(value, str):
                raise validation_error(f"State is {value!r}; it must be the name of a state")
        elif key == "Action":
            _check_action(kind, value)
        elif value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value < 0):
            raise validation_error(f"{key} is {value!r}; it must be a number that is not negative")
    lasting = kind == "ClosedToDebugger" or options.get("PerSecond") is not None
    times = document.get("Times", None if lasting else 1)
    if times is not None and (isinstance(times, bool) or not isinstance(times, int) or times < 1):
        raise validation_error(f"Times is {times!r}; it must be a whole number of at least 1, or null")
    name = document.get("Name", "*")
    if not isinstance(name, str):
        raise validation_error(f"Name is {name!r}; it must be a pattern of names, such as run-*")
    return Fault(secrets.token_hex(4), kind, name, times, options)


def _check_action(kind: str, action: object) -> None:
    if action is None or action == INVOKE_ENDPOINT or (kind == "LostReply" and action == INVOKE_FUNCTION):
        return
    if not isinstance(action, str):
        raise validation_error(f"Action is {action!r}; it must be the name of an action")
    operation(action)
    if kind == "ResourceLimitExceeded" and not _can_exceed_limits(action):
        raise validation_error(f"SageMaker's {action} never answers ResourceLimitExceeded")


def _of(action: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda options: options["Action"] in (None, action)


def _admitted(fault: Fault) -> bool:
    """Whether a request is within the rate of a Throttling fault; it counts if it is."""
    rate, now = fault.options["PerSecond"], time.monotonic()
    if rate is None:
        return False
    while fault.admitted and now - fault.admitted[0] >= 1:
        fault.admitted.popleft()
    if len(fault.admitted) >= rate:
        return False
    fault.admitted.append(now)
    return True


def _can_exceed_limits(action: str) -> bool:
    if action == INVOKE_ENDPOINT:
        return False
    return "ResourceLimitExceeded" in {shape.name for shape in operation(action).error_shapes}


def _usage(action: str) -> str:
    return {
        "CreateTrainingJob": "training job",
        "CreateHyperParameterTuningJob": "training job",
        "CreateEndpoint": "endpoint",
        "UpdateEndpoint": "endpoint",
        "UpdateEndpointWeightsAndCapacities": "endpoint",
    }.get(action, action)


def _resource_name(action: str, parameters: Mapping[str, Any]) -> str:
    """The name that a request gives to what it is about: the first of its members that ends so."""
    if action == INVOKE_ENDPOINT:
        return parameters["EndpointName"]
    shape = operation(action).input_shape
    members = shape.members if shape is not None else ()
    names = (parameters[member] for member in members if member.endswith("Name") and member in parameters)
    return str(next(names, ""))
