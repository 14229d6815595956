"""RetireModels: models and endpoint configurations of former runs go, but for the newest, champions and those in use.

They cost nothing, but an account may hold only so many: https://docs.aws.amazon.com/general/latest/gr/sagemaker.html
Their packages stay, and so does the artifact: a model can be made of them again. EventBridge calls this when a run has
ended. Event: not looked at. Answer: {"retired": names of configurations, each of which is a model's name too}.
"""

import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import documents
from botocore.exceptions import ClientError
from invocation import client, log

YOUNGEST_DAYS = 1
"""What is younger may belong to a run that has yet to deploy it."""


def handler(event: dict[str, Any], context: Any) -> dict[str, list[str]]:
    prefix, sagemaker = os.environ["NAME_PREFIX"], client("sagemaker")
    made = made_by_runs(sagemaker, prefix)
    used = in_use(sagemaker, prefix) | champions(client("s3"), os.environ["BUCKET"])
    retired = superfluous(made, used, int(os.environ["KEEP_MODELS"]), datetime.now(UTC))
    for name in retired:
        delete(sagemaker, name)
    log(event.get("id", ""), context).info("retired", extra={"models": retired})
    return {"retired": retired}


def superfluous(made: dict[str, datetime], used: set[str], keep: int, now: datetime) -> list[str]:
    """Return the names that may go: neither used, nor among the newest, nor so young that they may yet be used."""
    newest_first = sorted(made, key=lambda name: made[name], reverse=True)
    return [
        name for name in newest_first[keep:] if name not in used and now - made[name] > timedelta(days=YOUNGEST_DAYS)
    ]


def made_by_runs(sagemaker: Any, prefix: str) -> dict[str, datetime]:
    """Return names of models and configurations, which a run gives the same name, with the time of the latter made."""
    configs = sagemaker.get_paginator("list_endpoint_configs").paginate(NameContains=prefix)
    models = sagemaker.get_paginator("list_models").paginate(NameContains=prefix)
    made: dict[str, datetime] = {}
    for name, created in (
        *named(configs, "EndpointConfigs", "EndpointConfigName"),
        *named(models, "Models", "ModelName"),
    ):
        if re.fullmatch(f"{prefix}-[0-9a-f]{{12}}", name):
            made[name] = max(created, made.get(name, created))
    return made


def named(pages: Iterable[dict[str, Any]], member: str, name: str) -> list[tuple[str, datetime]]:
    return [(item[name], item["CreationTime"]) for page in pages for item in page[member]]


def in_use(sagemaker: Any, prefix: str) -> set[str]:
    """Return the configurations that endpoints run, or are on the way to."""
    used = set()
    for page in sagemaker.get_paginator("list_endpoints").paginate(NameContains=prefix):
        for endpoint in page["Endpoints"]:
            live = sagemaker.describe_endpoint(EndpointName=endpoint["EndpointName"])
            used |= {live["EndpointConfigName"], live.get("PendingDeploymentSummary", live)["EndpointConfigName"]}
    return used


def champions(s3: Any, bucket: str) -> set[str]:
    """Return the configurations of every endpoint's champion: a run that ends in the middle of a deploy needs them."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="endpoints/")
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    uris = [f"s3://{bucket}/{key}" for key in keys if key.endswith("/champion.json")]
    return {documents.read(s3, uri, "champion")["endpoint_config"] for uri in uris}


def delete(sagemaker: Any, name: str) -> None:
    """Delete a configuration and then its model; either may be gone."""
    for act, key in ((sagemaker.delete_endpoint_config, "EndpointConfigName"), (sagemaker.delete_model, "ModelName")):
        try:
            act(**{key: name})
        except ClientError as error:
            if error.response["Error"]["Code"] != "ValidationException":  # SageMaker's answer for what is not there
                raise
