"""Input channels of a job: which objects they name, and as which files the job finds them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localcloud.sagemaker.objects import Location, ObjectCache, StoredObject, TransferError, list_objects, safe_path


def download_channel(
    cache: ObjectCache,
    s3: Any,
    role_arn: str,
    channel: Mapping[str, Any],
    folder: Path,
    shard: tuple[int, int] = (0, 1),
) -> int:
    """Write a channel's objects below `folder`; return the bytes. Raises TransferError, in AWS's words where nothing
    was found.

    shard: the number of the instance from 0, and how many there are: with ShardedByS3Key each gets its share.
    """
    source = channel["DataSource"]["S3DataSource"]
    location = Location.parse(source["S3Uri"])
    if source["S3DataType"] == "ManifestFile":
        files = _manifest_files(cache, s3, role_arn, location, folder)
    else:
        files = [(stored, prefix_path(location.key, stored.location.key)) for stored in list_objects(s3, location)]
    if not files:
        raise TransferError(
            f'No S3 objects found under S3 URL "{source["S3Uri"]}" given in input data source. Please ensure that the '
            f"bucket exists in the selected region, that objects exist under that S3 prefix, and that the role "
            f'"{role_arn}" has "s3:ListBucket" permissions on bucket "{location.bucket}".'
        )
    if source.get("S3DataDistributionType") == "ShardedByS3Key":
        number, count = shard
        files = files[number::count]
    return cache.fetch(s3, role_arn, [(stored, safe_path(folder, relative)) for stored, relative in files])


def prefix_path(prefix: str, key: str) -> str:
    """Return a key's path in the channel: below the prefix if that names a folder (with or without its slash) or the
    object itself, else (the prefix ends within a name) below the prefix's own folder.
    """
    if key == prefix:
        return key.rpartition("/")[2]
    if prefix.endswith("/") or not prefix:
        return key.removeprefix(prefix)
    if key.startswith(prefix + "/"):
        return key.removeprefix(prefix + "/")
    return key[len(prefix.rpartition("/")[0] + "/") if "/" in prefix else 0 :]


def _manifest_files(
    cache: ObjectCache, s3: Any, role_arn: str, location: Location, folder: Path
) -> list[tuple[StoredObject, str]]:
    """Read `[{"prefix": "s3://bucket/folder/"}, "relative/key", ...]` and look up what it names."""
    stored = [found for found in list_objects(s3, location) if found.location == location]
    if not stored:
        raise TransferError(f"there is no manifest at {location}")
    manifest = folder.parent / f"{folder.name}-manifest"  # where AWS has it
    cache.fetch(s3, role_arn, [(stored[0], manifest)])
    try:
        head, *names = json.loads(manifest.read_bytes())
        base = Location.parse(head["prefix"])
        keys = {base.key + name: name for name in names}
    except (ValueError, TypeError, KeyError) as error:
        raise TransferError(
            f'the manifest {location} is not of the form [{{"prefix": "s3://bucket/folder/"}}, "relative/key", ...]: '
            f"{error!r}"
        ) from error
    found = {candidate.location.key: candidate for candidate in list_objects(s3, base)}
    missing = sorted(keys.keys() - found.keys())
    if missing:
        raise TransferError(
            f"the manifest {location} names {len(missing)} objects that do not exist, the first: "
            f"s3://{base.bucket}/{missing[0]}"
        )
    return [(found[key], name) for key, name in keys.items()]
