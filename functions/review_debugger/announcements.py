"""An EventBridge event for each issue. One that cannot be sent is told of, and decides nothing."""

import hashlib
import json
import time
from collections.abc import Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

EVENTS_PER_REQUEST = 10
"""https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEvents.html"""
PAUSES_SECONDS = (0, 1, 3)
"""Before each attempt."""

Entry = dict[str, Any]


def events_of(plan: dict[str, Any], job: str, verdict: str, findings: Sequence[dict[str, Any]]) -> list[Entry]:
    """Return an event for each IssuesFound; its id is the same however often a review is repeated."""
    return [_event(plan, job, verdict, finding) for finding in findings if finding["status"] == "IssuesFound"]


def announce(events: Any, entries: Sequence[Entry]) -> list[dict[str, str]]:
    """Put events; return rule, source and reason of each that EventBridge did not take."""
    refused = [(entry, "") for entry in entries]
    for seconds in PAUSES_SECONDS:
        if refused:
            time.sleep(seconds)
            refused = _refused(events, [entry for entry, _ in refused])
    details = [(json.loads(entry["Detail"]), reason) for entry, reason in refused]
    return [{"rule": detail["rule"], "source": detail["source"], "reason": reason} for detail, reason in details]


def _event(plan: dict[str, Any], job: str, verdict: str, finding: dict[str, Any]) -> Entry:
    named = f"{job} {finding['source']} {finding['rule']}"
    detail = {
        "id": hashlib.sha256(named.encode()).hexdigest(),
        "run_id": plan["run_id"],
        "execution_arn": plan["execution_arn"],
        "job": job,
        "verdict": verdict,
        **{name: finding[name] for name in ("rule", "source", "step", "tensor", "values", "message")},
    }
    return {
        "Source": "kelpie",
        "DetailType": "DebuggerIssueFound",
        "Resources": [plan["execution_arn"]],
        "Detail": json.dumps(detail),
    }


def _refused(events: Any, entries: list[Entry]) -> list[tuple[Entry, str]]:
    refused: list[tuple[Entry, str]] = []
    for start in range(0, len(entries), EVENTS_PER_REQUEST):
        sent = entries[start : start + EVENTS_PER_REQUEST]
        try:
            answers = events.put_events(Entries=sent)["Entries"]
        except (BotoCoreError, ClientError) as error:  # which the requests after it would meet too
            return [*refused, *((entry, str(error)) for entry in entries[start:])]
        refused += [
            (entry, f"{answer['ErrorCode']}: {answer.get('ErrorMessage', '')}")
            for entry, answer in zip(sent, answers, strict=True)
            if "ErrorCode" in answer
        ]
    return refused
