"""What a job leaves behind: /opt/ml/model and /opt/ml/output/data, packed or plain, below its output path in S3."""

import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from localcloud.sagemaker.objects import Location, in_parallel, upload

COMPRESSION_LEVEL = 1  # weights hardly compress: level 6 costs twice the time for 1 % of the size


def model_artifacts_uri(output: Mapping[str, Any], job_name: str) -> str:
    """Return where a job's model is found, whether it wrote one or not."""
    folder = _folder(output, job_name)
    return str(folder.below("model/") if output.get("CompressionType") == "NONE" else folder.below("model.tar.gz"))


def upload_artifacts(s3: Any, output: Mapping[str, Any], job_name: str, instances: Sequence[Path]) -> None:
    """Upload the model and the output data of all instances (their /opt/ml) together; without files there is nothing,
    as on AWS. Of files that have the same path the first instance's is taken: AWS asks that there be none.

    Raises TransferError.
    """
    folder = _folder(output, job_name)
    kms_key_id = output.get("KmsKeyId") or None
    for source, archive, plain in (("model", "model.tar.gz", "model"), ("output/data", "output.tar.gz", "data")):
        files: dict[str, Path] = {}
        for folder_of_instance in (opt_ml / source for opt_ml in reversed(instances)):
            for path in folder_of_instance.rglob("*"):
                if path.is_file() or path.is_symlink():
                    files[path.relative_to(folder_of_instance).as_posix()] = path
        if not files:
            continue
        if output.get("CompressionType") == "NONE":
            targets = [
                (path, folder.below(f"{plain}/{name}")) for name, path in sorted(files.items()) if path.is_file()
            ]
            in_parallel(lambda target: upload(s3, *target, kms_key_id), targets)
        else:
            packed = instances[0] / archive
            with tarfile.open(packed, "w:gz", compresslevel=COMPRESSION_LEVEL) as tar:
                for name, path in sorted(files.items()):
                    tar.add(path, name, recursive=False)
            upload(s3, packed, folder.below(archive), kms_key_id)


def _folder(output: Mapping[str, Any], job_name: str) -> Location:
    return Location.parse(output["S3OutputPath"]).below(f"{job_name}/output")
