"""Tags of any resource of the service, by its ARN."""

from __future__ import annotations

from typing import Any

from localcloud.sagemaker.errors import resource_limit_exceeded, validation_error
from localcloud.sagemaker.store import Store

KIND = "tags"
MOST_TAGS = 50


class Tags:
    def __init__(self, store: Store):
        self._store = store

    def register(self, arn: str, tags: list[dict[str, str]] | None) -> None:
        """Make a new resource known, with the tags that its Create request gave."""
        self.forget(arn)
        self._store.create(KIND, arn, {"Tags": _merged([], tags or [])})

    def forget(self, arn: str) -> None:
        """Drop the tags of a deleted resource."""
        if self._store.get(KIND, arn) is not None:
            self._store.delete(KIND, arn)

    def of(self, arn: str) -> list[dict[str, str]]:
        record = self._store.get(KIND, arn)
        return record["Tags"] if record else []

    def add_tags(self, parameters: dict[str, Any]) -> dict[str, Any]:
        def change(record: dict[str, Any]) -> None:
            record["Tags"] = _merged(record["Tags"], parameters["Tags"])

        return self._update(parameters["ResourceArn"], change)

    def list_tags(self, parameters: dict[str, Any]) -> dict[str, Any]:
        arn = parameters["ResourceArn"]
        self._known(arn)
        return {"Tags": self.of(arn)}

    def delete_tags(self, parameters: dict[str, Any]) -> dict[str, Any]:
        def change(record: dict[str, Any]) -> None:
            record["Tags"] = [tag for tag in record["Tags"] if tag["Key"] not in parameters["TagKeys"]]

        self._update(parameters["ResourceArn"], change)
        return {}

    def _update(self, arn: str, change: Any) -> dict[str, Any]:
        self._known(arn)
        return self._store.update(KIND, arn, change)

    def _known(self, arn: str) -> None:
        if self._store.get(KIND, arn) is None:
            raise validation_error(f"Requested resource not found: {arn}")


def _merged(tags: list[dict[str, str]], added: list[dict[str, str]]) -> list[dict[str, str]]:
    merged = {tag["Key"]: tag["Value"] for tag in [*tags, *added]}
    if len(merged) > MOST_TAGS:
        raise resource_limit_exceeded(
            f"A resource can have at most {MOST_TAGS} tags; this one would have {len(merged)}"
        )
    return [{"Key": key, "Value": value} for key, value in merged.items()]
