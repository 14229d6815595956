"""LockEndpoint: one run at a time between the gate and VerifyEndpoint. UnlockEndpoint gives the lock back.

The lock is an object beside the champion's pointer, owned by an execution and written under S3's conditions. It is
taken over only from an execution that has ended, whose deploy must then be recovered before anything else.

Event: {"action": "lock" or "unlock", "plan_uri": ...}. Answer: {"held": whether this run has the lock, "owner": the
execution that has it or "", "left_by": the execution whose deploy is to be recovered first, or "",
"champion_channels": the input channels by which EvaluateModel sees the champion, none if there is none}.
"""

from datetime import UTC, datetime
from typing import Any

import documents
import endpoints
from invocation import client, log

ATTEMPTS = 5


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    s3 = client("s3")
    plan = documents.read(s3, event["plan_uri"], "plan")
    folder = endpoints.folder_of(plan)
    for _ in range(ATTEMPTS):
        lock, etag = endpoints.read_lock(s3, folder)
        wanted = unlocked(lock, plan) if event["action"] == "unlock" else locked(lock, plan)
        if wanted == lock or endpoints.write_lock(s3, folder, wanted, etag):
            log(plan["execution_arn"], context).info(event["action"], extra={"owner": wanted["owner"]})
            held = wanted["owner"] == plan["execution_arn"]
            answer = {"held": held, "owner": wanted["owner"] or "", "left_by": wanted["left_by"] or ""}
            return answer | {"champion_channels": champion_channels(s3, folder) if held else []}
    raise endpoints.LockContended(f"{folder}/lock.json was written by others {ATTEMPTS} times in a row")


def locked(lock: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    """Return the lock as this run would have it: its own, unless the owner still runs."""
    owner = lock["owner"]
    if owner == plan["execution_arn"] or (owner and endpoints.is_running(client("stepfunctions"), owner)):
        return lock
    # Who took the lock over and ended before it had recovered leaves that to the next.
    return made(plan, plan["execution_arn"], lock["left_by"] or owner)


def unlocked(lock: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    return made(plan, None, None) if lock["owner"] == plan["execution_arn"] else lock


def made(plan: dict[str, Any], owner: str | None, left_by: str | None) -> dict[str, Any]:
    since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {"version": 1, "endpoint": plan["names"]["endpoint"], "owner": owner, "left_by": left_by, "since": since}


def champion_channels(s3: Any, folder: str) -> list[dict[str, Any]]:
    champion = endpoints.read_champion(s3, folder)
    if champion is None:
        return []
    sources = {"champion": champion["model_data"], "champion_manifest": champion["manifest"]}
    return [
        {
            "ChannelName": name,
            "InputMode": "File",
            "DataSource": {
                "S3DataSource": {"S3DataType": "S3Prefix", "S3DataDistributionType": "FullyReplicated", "S3Uri": uri}
            },
        }
        for name, uri in sources.items()
    ]
