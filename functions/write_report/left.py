"""What a run left behind: its documents, its pictures, its last words. Each may be missing, or of an older form."""

import base64
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import documents
from botocore.exceptions import BotoCoreError, ClientError
from failure import Failure
from jobs import Job, jobs_of
from wording import counted

LARGEST_DOCUMENT_BYTES = 48_000_000
"""A manifest of some 150,000 images; the rest of Lambda's memory is for reading it."""
LARGEST_PICTURE_BYTES, PICTURES_AT_A_TIME = 60_000, 16
PICTURES_BYTES = 1_200_000
"""Of all pictures together: as text they are a third larger, and the page stays below 3 MB."""
OF_TRAINING = ("findings", "profile", "training_history")
LOG_LINES, LONGEST_LINE = 40, 500
JOBS_LOG_GROUP = "/aws/sagemaker/TrainingJobs"
ENDPOINTS_LOG_GROUP = "/aws/sagemaker/Endpoints"
AFTER_THE_UPDATE = ("DescribeEndpoint", "HasEndpointSettled", "VerifyEndpoint")


@dataclass
class Left:
    run_uri: str
    documents: dict[str, Any] = field(default_factory=dict)
    """By contract's name; `champion` is the champion's evaluation."""
    uris: dict[str, str] = field(default_factory=dict)
    """Where each of them is."""
    problems: list[str] = field(default_factory=list)
    """What could not be read, in sentences."""
    pictures: dict[str, str] = field(default_factory=dict)
    """data: URIs by s3:// URI."""
    jobs: list[Job] = field(default_factory=list)
    """By step; the last of a step is the one that the run went on with."""
    log: "Log | None" = None

    def picture(self, document: str, path: str) -> str | None:
        """Return the picture of that path beside a document, as a data: URI."""
        return self.pictures.get(beside(self.uris[document], path)) if path else None


@dataclass(frozen=True)
class Log:
    group: str
    stream: str
    lines: Sequence[str]


def gather(s3: Any, sagemaker: Any, logs: Any, run_uri: str, failure: Failure | None) -> Left:
    """Read whatever is there."""
    left = Left(run_uri)
    for name in ("plan", "leaderboard", "debugger_review", "verdict", "verification"):
        _read(left, s3, name, f"{run_uri}/{name}.json")
    plan = left.documents.get("plan")
    if isinstance(plan, dict):
        locations = plan.get("locations", {})
        attempts = left.documents.get("debugger_review", {}).get("attempts") or [{}]
        checkpoints = attempts[-1].get("checkpoints") or locations.get("train_checkpoints")
        folders = {"manifest": locations.get("manifest")} | dict.fromkeys(OF_TRAINING, checkpoints)
        for name, folder in folders.items():
            if folder:
                _read(left, s3, name, beside(folder, f"{name}.json"))
        for name in ("evaluation", "variants"):
            if name in locations:
                _read(left, s3, name, locations[name])
        _read_jobs(left, sagemaker, plan)
    _read_champion(left, s3)
    _read_pictures(left, s3)
    if failure:
        left.log = _last_words(logs, failure, left)
    return left


def beside(uri: str, path: str) -> str:
    """Return the URI of a path in the folder of a document, or in a folder."""
    return f"{uri.rpartition('/')[0]}/{path}"


def _read(left: Left, s3: Any, name: str, uri: str, contract: str | None = None) -> None:
    """Read a document. One that breaks its contract is told of, and read all the same: it may be of an older form."""
    bucket, key = documents.split_uri(uri)
    try:
        found = s3.get_object(Bucket=bucket, Key=key)
        if found["ContentLength"] > LARGEST_DOCUMENT_BYTES:
            left.problems.append(f"{uri} was not read: it has {found['ContentLength']} bytes.")
            return
        document = json.loads(found["Body"].read())
        documents.checked(document, contract or name, uri)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("NoSuchKey", "404"):
            left.problems.append(f"{uri} could not be read: {error}")
        return
    except BotoCoreError as error:
        left.problems.append(f"{uri} could not be read: {error}")
        return
    except ValueError as error:
        left.problems.append(f"{uri} is not JSON: {error}")
        return
    except documents.DocumentInvalid as error:
        left.problems.append(str(error))
        if not isinstance(document, dict):
            return
    left.documents[name], left.uris[name] = document, uri


def _read_jobs(left: Left, sagemaker: Any, plan: dict[str, Any]) -> None:
    try:
        left.jobs = list(jobs_of(sagemaker, plan))
    except (BotoCoreError, ClientError, KeyError) as error:
        left.problems.append(f"What the jobs cost is not known: {type(error).__name__}: {error}")


def _read_champion(left: Left, s3: Any) -> None:
    """Read the evaluation of the model that served when this run's was judged: its run is named in ours."""
    run_id = (left.documents.get("evaluation", {}).get("champion") or {}).get("run_id")
    bucket, _ = documents.split_uri(left.run_uri)
    if run_id:
        theirs = Left(f"s3://{bucket}/runs/{run_id}")
        _read(theirs, s3, "plan", f"{theirs.run_uri}/plan.json")
        uri = theirs.documents.get("plan", {}).get("locations", {}).get("evaluation")
        if uri:
            _read(left, s3, "champion", uri, "evaluation")


def _pictures_named(left: Left) -> Iterator[str]:
    """Yield the pictures that the page has room for: mistakes first, then samples, one of each class after another."""
    evaluation, manifest = left.documents.get("evaluation", {}), left.documents.get("manifest", {})
    for mistake in evaluation.get("mistakes", []):
        if mistake.get("thumbnail"):
            yield beside(left.uris["evaluation"], mistake["thumbnail"])
    by_class: dict[str, list[str]] = {}
    for sample in manifest.get("samples", []):
        by_class.setdefault(sample["label"], []).append(beside(left.uris["manifest"], sample["thumbnail"]))
    for turn in range(max(map(len, by_class.values()), default=0)):
        yield from (uris[turn] for uris in by_class.values() if turn < len(uris))


def _read_pictures(left: Left, s3: Any) -> None:
    """Read pictures, many at a time, until there are as many as the page has room for."""
    named = list(_pictures_named(left))
    room = PICTURES_BYTES
    with ThreadPoolExecutor(PICTURES_AT_A_TIME) as pool:
        for start in range(0, len(named), PICTURES_AT_A_TIME):
            uris = named[start : start + PICTURES_AT_A_TIME]
            for uri, content in zip(uris, pool.map(lambda uri: _picture(s3, uri), uris), strict=True):
                if 0 < len(content) <= min(room, LARGEST_PICTURE_BYTES):
                    left.pictures[uri] = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
                    room -= len(content)
            if room < LARGEST_PICTURE_BYTES:
                return


def _picture(s3: Any, uri: str) -> bytes:
    """Return a picture's content, or none: the page then names it instead."""
    bucket, key = documents.split_uri(uri)
    try:
        content: bytes = s3.get_object(Bucket=bucket, Key=key)["Body"].read(LARGEST_PICTURE_BYTES + 1)
    except (BotoCoreError, ClientError):
        return b""
    return content


def _last_words(logs: Any, failure: Failure, left: Left) -> Log | None:
    """Return the end of the log of what failed: a job, a trial or the endpoint."""
    job = failure.job
    trials = left.documents.get("leaderboard", {}).get("trials", [])
    if failure.state == "TuneHyperparameters":
        job = next((trial["job"] for trial in trials if trial["status"] == "Failed"), job)
    which: dict[str, Any]
    group, which = JOBS_LOG_GROUP, {"logStreamNamePrefix": f"{job}/"}
    if not job:
        if failure.state not in AFTER_THE_UPDATE or "plan" not in left.documents:
            return None
        group = f"{ENDPOINTS_LOG_GROUP}/{left.documents['plan']['names']['endpoint']}"
        which = {"orderBy": "LastEventTime", "descending": True}
    try:
        streams = logs.describe_log_streams(logGroupName=group, **which)["logStreams"]
        if not streams:
            return None
        # Of a job with several instances, the first; of an endpoint's fleets, the one that was started last.
        first = streams[0] if job else max(streams, key=lambda stream: stream["creationTime"])
        stream = first["logStreamName"]
        found = logs.get_log_events(logGroupName=group, logStreamName=stream, limit=400, startFromHead=False)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            left.problems.append(f"The log {group} could not be read: {error}")
        return None
    except BotoCoreError as error:
        left.problems.append(f"The log {group} could not be read: {error}")
        return None
    return Log(group, stream, telling(event["message"] for event in found["events"]))


def telling(messages: Iterable[str]) -> list[str]:
    """Return the lines of a log's end that matter: the last traceback and what follows it, or just the last lines."""
    lines = [line.rstrip()[:LONGEST_LINE] for message in messages for line in message.splitlines()]
    starts = [number for number, line in enumerate(lines) if "Traceback (most recent call last)" in line]
    end = lines[starts[-1] :] if starts else lines[-LOG_LINES:]
    if len(end) <= LOG_LINES:
        return end
    # The error itself stands at the end of its traceback.
    return [end[0], f"… {counted(len(end) - LOG_LINES + 1, 'line')} …", *end[2 - LOG_LINES :]]
