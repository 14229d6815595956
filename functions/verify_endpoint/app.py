"""VerifyEndpoint: the live endpoint gives the answers that the evaluation gave; only then does the champion move.

Event: {"plan_uri": ..., "model_data": s3:// URI of model.tar.gz, "model_package_arn": ...}. Answer: the verification,
contracts/verification.schema.json. Called again after the champion has moved, it answers what it found then, lock or no
lock: the run may have been stopped, cleaned up after and redriven.
"""

import hashlib
import json
import random
import statistics
import time
from datetime import UTC, datetime
from typing import Any

import documents
from botocore.exceptions import ClientError
from invocation import client, log

MOST_GOLDEN = 12
MOST_SAMPLED = 8
TOLERANCE = 0.01
"""Of a probability. Evaluation and serving differ in versions of torch and in processors."""
TOLERANCE_OF_ANOTHER_VARIANT = 0.1
"""Where the evaluation's machine could not run the variant that answers: eight bits give float32's labels, but not its
probabilities. That it computes what it should, its container has shown by the golden images before it took traffic."""


class EndpointConfigMismatch(Exception):
    """The endpoint is not in service on the configuration that this run asked for."""


class LockLost(Exception):
    """The run has not the endpoint's lock: it was redriven after its deploy had been cleaned up."""


class NothingToVerify(Exception):
    """The evaluation names no sample image, so that nothing could be proved."""


class SampleChanged(Exception):
    """A sample image that the evaluation left is not the one that was evaluated."""


class EndpointAnswersDiffer(Exception):
    """The endpoint does not answer as the evaluation did."""


class EndpointTooSlow(Exception):
    """The endpoint takes longer for an answer than the run allows."""


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    s3 = client("s3")
    plan = documents.read(s3, event["plan_uri"], "plan")
    verification_uri = f"s3://{plan['bucket']}/{plan['prefix']}/verification.json"
    champion_uri = f"s3://{plan['bucket']}/endpoints/{plan['names']['endpoint']}/champion.json"
    evaluation = documents.read(s3, plan["locations"]["evaluation"], "evaluation")
    log(plan["execution_arn"], context).info("verifying", extra={"endpoint": plan["names"]["endpoint"]})
    check_live_config(client("sagemaker"), plan["names"])
    if is_champion(s3, champion_uri, plan):
        return documents.read(s3, verification_uri, "verification")
    check_lock(s3, plan)
    images = golden(evaluation, plan) + sampled(evaluation, plan)
    answers = [ask(s3, client("sagemaker-runtime"), plan, evaluation["variant"], image) for image in images]
    milliseconds = [answer["milliseconds"] for answer in answers]
    verification = {
        "version": 1,
        "run_id": plan["run_id"],
        "endpoint": plan["names"]["endpoint"],
        "endpoint_config": plan["names"]["endpoint_config"],
        "verified": all(answer["matches"] for answer in answers),
        "latency_milliseconds": {
            "median": round(statistics.median(milliseconds), 1),
            "slowest": max(milliseconds),
            "most": plan["input"]["serving"]["max_latency_milliseconds"],
        },
        "answers": answers,
    }
    documents.write(s3, verification_uri, "verification", verification)
    check_answers(verification, evaluation["weights_sha256"])
    check_latency(verification["latency_milliseconds"], plan["names"]["endpoint"])
    documents.write(s3, champion_uri, "champion", champion(plan, evaluation, event))
    return verification


def is_champion(s3: Any, champion_uri: str, plan: dict[str, Any]) -> bool:
    """Return whether this run's model is the champion already: an earlier call moved it."""
    try:
        found = documents.read(s3, champion_uri, "champion")
    except documents.DocumentMissing:
        return False
    return found["endpoint_config"] == plan["names"]["endpoint_config"]


def golden(evaluation: dict[str, Any], plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the evaluation's own samples, spread over the classes. Raises NothingToVerify."""
    samples = [sample for sample in evaluation["samples"] if not sample["drawn"]][:MOST_GOLDEN]
    if not samples:
        raise NothingToVerify(f"{plan['locations']['evaluation']} has no samples to ask the endpoint about")
    return [{**sample, "chosen": "golden"} for sample in samples]


def sampled(evaluation: dict[str, Any], plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return some of those that the evaluation drew from all its images, so that no server can know them beforehand."""
    drawn = [sample for sample in evaluation["samples"] if sample["drawn"]]
    asked = random.Random(plan["run_id"]).sample(drawn, min(MOST_SAMPLED, len(drawn)))
    return [{**sample, "chosen": "sampled"} for sample in asked]


def check_lock(s3: Any, plan: dict[str, Any]) -> None:
    """Raise LockLost unless this run has the lock: what it was judged against may not be the champion any more."""
    lock = documents.read(s3, f"s3://{plan['bucket']}/endpoints/{plan['names']['endpoint']}/lock.json", "lock")
    if lock["owner"] != plan["execution_arn"]:
        raise LockLost(
            f"the lock of the endpoint {plan['names']['endpoint']} belongs to {lock['owner'] or 'nobody'}, not to this "
            "run: its deploy was cleaned up when it ended; start a new run"
        )


def check_live_config(sagemaker: Any, names: dict[str, str]) -> None:
    """Raise EndpointConfigMismatch unless the endpoint is in service on this run's configuration."""
    live = sagemaker.describe_endpoint(EndpointName=names["endpoint"])
    if (live["EndpointStatus"], live["EndpointConfigName"]) != ("InService", names["endpoint_config"]):
        raise EndpointConfigMismatch(
            f"the endpoint {names['endpoint']} is {live['EndpointStatus']} on {live['EndpointConfigName']}, "
            f"not InService on {names['endpoint_config']}"
        )


def ask(s3: Any, runtime: Any, plan: dict[str, Any], scored: str, sample: dict[str, Any]) -> dict[str, Any]:
    """Return what the endpoint answers to a test image beside what the evaluation answered by the variant `scored`."""
    bucket, evaluation_key = documents.split_uri(plan["locations"]["evaluation"])
    key = f"{evaluation_key.rpartition('/')[0]}/{sample['file']}"
    image = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    if hashlib.sha256(image).hexdigest() != sample["sha256"]:
        raise SampleChanged(f"s3://{bucket}/{key} is not the image {sample['path']} that was evaluated")
    content_type = "image/png" if sample["path"].lower().endswith(".png") else "image/jpeg"
    started = time.perf_counter()
    try:
        response = runtime.invoke_endpoint(
            EndpointName=plan["names"]["endpoint"], ContentType=content_type, Accept="application/json", Body=image
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "ModelError":
            raise
        raise EndpointAnswersDiffer(
            f"the endpoint answered {sample['path']} with status {error.response.get('OriginalStatusCode')}: "
            f"{error.response.get('OriginalMessage')}"
        ) from error
    body = json.loads(response["Body"].read())
    milliseconds = round((time.perf_counter() - started) * 1000, 1)
    said = response.get("CustomAttributes", "").partition("variant=")[2]
    return compare(sample, scored, said or scored, body, milliseconds)


def compare(
    sample: dict[str, Any], scored: str, variant: str, body: dict[str, Any], milliseconds: float
) -> dict[str, Any]:
    """Return an entry of the verification. The same label wins, or the two are tied within the tolerance.

    scored: the variant of the evaluation's answers; variant: the one that answers now, which is float32 on an instance
    that cannot run the other.
    """
    if variant == "float32" and "float32" in sample:
        expected, tolerance = sample["float32"], TOLERANCE
    else:
        expected, tolerance = sample, TOLERANCE if variant == scored else TOLERANCE_OF_ANOTHER_VARIANT
    first = body["predictions"][0]
    probabilities = {one["label"]: one["probability"] for one in body["predictions"]}
    again = probabilities.get(expected["predicted"], 0.0)
    same_label = first["label"] == expected["predicted"] or first["probability"] - again <= tolerance
    return {
        "path": sample["path"],
        "chosen": sample["chosen"],
        "variant": variant,
        "tolerance": tolerance,
        "expected": expected["predicted"],
        "expected_probability": expected["probability"],
        "answered": first["label"],
        "answered_probability": first["probability"],
        "matches": same_label and abs(again - expected["probability"]) <= tolerance,
        "weights_sha256": body["model"]["weights_sha256"],
        "milliseconds": milliseconds,
    }


def check_answers(verification: dict[str, Any], weights_sha256: str) -> None:
    """Raise EndpointAnswersDiffer unless the evaluated weights gave the evaluated answers."""
    answers = verification["answers"]
    others = sorted({answer["weights_sha256"] for answer in answers} - {weights_sha256})
    if others:
        raise EndpointAnswersDiffer(f"the endpoint serves the weights {others[0]}, not {weights_sha256}")
    wrong = [answer for answer in answers if not answer["matches"]]
    if wrong:
        first = wrong[0]
        raise EndpointAnswersDiffer(
            f"{len(wrong)} of {len(answers)} test images were answered otherwise than in the evaluation, the first "
            f"{first['path']}: {first['answered']} {first['answered_probability']:.4f}, "
            f"not {first['expected']} {first['expected_probability']:.4f}"
        )


def check_latency(latency: dict[str, float], endpoint: str) -> None:
    """Raise EndpointTooSlow if the median answer took longer than the run allows."""
    if latency["median"] > latency["most"]:
        raise EndpointTooSlow(
            f"the endpoint {endpoint} takes {latency['median']:.0f} ms for an answer (median; the slowest took "
            f"{latency['slowest']:.0f} ms), more than serving.max_latency_milliseconds {latency['most']}: choose a "
            "smaller network or a larger instances.endpoint, or allow more"
        )


def champion(plan: dict[str, Any], evaluation: dict[str, Any], event: dict[str, Any]) -> dict[str, Any]:
    """Return the pointer to what the endpoint serves and where it came from."""
    return {
        "version": 1,
        "endpoint": plan["names"]["endpoint"],
        "endpoint_config": plan["names"]["endpoint_config"],
        "model": plan["names"]["model"],
        "model_data": event["model_data"],
        "model_package_arn": event["model_package_arn"],
        "run_id": plan["run_id"],
        "execution_arn": plan["execution_arn"],
        "evaluation": plan["locations"]["evaluation"],
        "manifest": f"{plan['locations']['manifest']}manifest.json",
        "accuracy": evaluation["accuracy"],
        "data_digest": evaluation["data_digest"],
        "weights_sha256": evaluation["weights_sha256"],
        "scaling": plan["scaling"],
        "since": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
