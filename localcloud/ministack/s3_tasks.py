"""`aws-sdk:s3:getObject` in a state machine, which MiniStack does not have. The role is asked, as on AWS."""

from typing import Any

from ministack.services import s3, stepfunctions

from localcloud.ministack.state_machines import refused_by_role

GET_OBJECT = "arn:aws:states:::aws-sdk:s3:getObject"


def register() -> None:
    stepfunctions._SERVICE_DISPATCH[GET_OBJECT] = _get_object


def _get_object(_resource: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the object's text as Body: Step Functions knows no bytes."""
    if set(parameters) != {"Bucket", "Key"}:
        raise stepfunctions._ExecutionError(
            "States.Runtime", f"{GET_OBJECT} takes Bucket and Key in the local cloud, not {sorted(parameters)}"
        )
    bucket, key = f"arn:aws:s3:::{parameters['Bucket']}", parameters["Key"]
    if refused := refused_by_role("s3:GetObject", f"{bucket}/{key}"):
        raise stepfunctions._ExecutionError("S3.S3Exception", refused)
    if parameters["Bucket"] not in s3._buckets:
        raise stepfunctions._ExecutionError("S3.NoSuchBucketException", "The specified bucket does not exist")
    body = s3._get_object_data(parameters["Bucket"], key)
    if body is None:
        if refused := refused_by_role("s3:ListBucket", bucket):
            raise stepfunctions._ExecutionError("S3.S3Exception", refused)
        raise stepfunctions._ExecutionError("S3.NoSuchKeyException", "The specified key does not exist.")
    return {"Body": body.decode()}
