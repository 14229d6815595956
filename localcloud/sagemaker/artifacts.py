"""What a job leaves behind: /opt/ml/model and /opt/ml/output/data, packed or plain, below its output path in S3."""

import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localcloud.sagemaker.objects import Location, in_parallel, upload

COMPRESSION_LEVEL = 1  # weights hardly compress: level 6 costs twice the time for 1 % of the size


def model_artifacts_uri(output: Mapping[str, Any], job_name: str) -> str:
    """Return where a job's model is found, whether it wrote one or not."""
    folder = _folder(output, job_name)
    return str(folder.below("model/") if output.get("CompressionType") == "NONE" else folder.below("model.tar.gz"))


def upload_artifacts(s3: Any, output: Mapping[str, Any], job_name: str, opt_ml: Path) -> None:
    """Upload the model and the output data; a folder without files leaves nothing, as on AWS. Raises TransferError."""
    folder = _folder(output, job_name)
    kms_key_id = output.get("KmsKeyId") or None
    for source, archive, plain in (
        (opt_ml / "model", "model.tar.gz", "model"),
        (opt_ml / "output" / "data", "output.tar.gz", "data"),
    ):
        files = sorted(path for path in source.rglob("*") if path.is_file() or path.is_symlink())
        if not files:
            continue
        if output.get("CompressionType") == "NONE":
            targets = [
                (path, folder.below(f"{plain}/{path.relative_to(source).as_posix()}"))
                for path in files
                if path.is_file()
            ]
            in_parallel(lambda target: upload(s3, *target, kms_key_id), targets)
        else:
            packed = opt_ml / archive
            with tarfile.open(packed, "w:gz", compresslevel=COMPRESSION_LEVEL) as tar:
                for path in files:
                    tar.add(path, path.relative_to(source).as_posix(), recursive=False)
            upload(s3, packed, folder.below(archive), kms_key_id)


def _folder(output: Mapping[str, Any], job_name: str) -> Location:
    return Location.parse(output["S3OutputPath"]).below(f"{job_name}/output")
