"""A repair of MiniStack's S3: versions of objects lie on the disk, not in the server's memory as well."""

import functools
from collections.abc import Callable
from typing import Any

from ministack.services import s3

from localcloud.ministack.repairs import Repair


def _persist_object(original: Callable[..., Any]) -> Callable[..., Any]:
    """MiniStack drops an object's body once it is written, and keeps that of its version; it reads both from the disk
    after a restart.
    """

    @functools.wraps(original)
    def persist_object(bucket: str, key: str, record: dict[str, Any]) -> None:
        original(bucket, key, record)
        if record["body"] is None:
            for version in s3._object_versions.get((bucket, key)) or []:
                if version["version_id"] == record.get("version_id"):
                    version["data"] = None

    return persist_object


REPAIRS = [
    Repair(
        "the bodies of all versions are kept in memory",
        s3.__name__,
        "_persist_object",
        "cb32b6ae8706",
        _persist_object,
    )
]
