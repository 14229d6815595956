"""SageMaker's types in CloudFormation templates: AWS::SageMaker::ModelPackageGroup.

https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-sagemaker-modelpackagegroup.html
"""

from typing import Any

from ministack.services.cloudformation import provisioners

from localcloud.sagemaker.errors import ServiceError
from localcloud.sagemaker.service import SageMaker

TYPE = "AWS::SageMaker::ModelPackageGroup"
REPLACING = ("ModelPackageGroupName", "ModelPackageGroupDescription")
KNOWN = frozenset({*REPLACING, "Tags"})


def register(sagemaker: SageMaker) -> None:
    groups = ModelPackageGroups(sagemaker)
    provisioners._RESOURCE_HANDLERS[TYPE] = {
        "create": groups.create,
        "update": groups.update,
        "delete": groups.delete,
    }
    provisioners._REPLACING_PROPERTIES[TYPE] = REPLACING
    provisioners._STACK_TAG_PROPERTY[TYPE] = ("Tags", "list")
    provisioners._CUSTOM_NAME_REPLACEMENT[TYPE] = {"name": "ModelPackageGroupName"}


class ModelPackageGroups:
    """The physical id, which `Ref` returns, is the group's ARN. A group that holds versions is not deleted: as on AWS,
    that blocks the deletion of its stack.
    """

    def __init__(self, sagemaker: SageMaker):
        self._sagemaker = sagemaker

    def create(self, _logical_id: str, properties: dict[str, Any], _stack_name: str) -> tuple[str, dict[str, Any]]:
        """Raises ValueError for a property that is not supported, and ServiceError."""
        if unknown := sorted(properties.keys() - KNOWN):
            raise ValueError(f"{TYPE}: {', '.join(unknown)} is not supported by the local cloud")
        arn = self._sagemaker.answer("CreateModelPackageGroup", properties)["ModelPackageGroupArn"]
        return arn, self._attributes(arn)

    def update(
        self, arn: str, old: dict[str, Any], new: dict[str, Any], _stack_name: str
    ) -> tuple[str, dict[str, Any]]:
        """Only tags change in place."""
        if unknown := sorted(new.keys() - KNOWN):
            raise ValueError(f"{TYPE}: {', '.join(unknown)} is not supported by the local cloud")
        kept = {tag["Key"] for tag in new.get("Tags", [])}
        if dropped := [tag["Key"] for tag in old.get("Tags", []) if tag["Key"] not in kept]:
            self._sagemaker.answer("DeleteTags", {"ResourceArn": arn, "TagKeys": dropped})
        if kept:
            self._sagemaker.answer("AddTags", {"ResourceArn": arn, "Tags": new["Tags"]})
        return arn, self._attributes(arn)

    def delete(self, arn: str, _properties: dict[str, Any]) -> None:
        try:
            self._sagemaker.answer("DeleteModelPackageGroup", {"ModelPackageGroupName": arn})
        except ServiceError as error:
            if error.code == "ConflictException":
                raise
            # It was deleted behind CloudFormation's back, which is as good.

    def _attributes(self, arn: str) -> dict[str, str]:
        group = self._sagemaker.answer("DescribeModelPackageGroup", {"ModelPackageGroupName": arn})
        return {
            "ModelPackageGroupArn": arn,
            "ModelPackageGroupStatus": group["ModelPackageGroupStatus"],
            "CreationTime": group["CreationTime"].isoformat(),
        }
